"""What each layer is, how large, and how like the whole gradient it sees the pairs."""

import re

import polars as pl

from gradsim.analysis.evaluation import Criterion
from gradsim.analysis.layer_dots import LayerDots
from gradsim.analysis.layer_evaluation import evaluate_layers
from gradsim.analysis.schema import Schema
from gradsim.analysis.statistics import Bootstrap
from gradsim.errors import TableError

SIMILARITY_TO_FULL_GRADIENT: Schema = {
    "layer": (pl.String, "parameter tensor, in model order"),
    "similarity": (
        pl.Float64,
        "cosine of the layer's similarities of all pairs with the full gradient's; 0 if all are 0",
    ),
    "low": (pl.Float64, "lower end of its 95 % interval, a bootstrap over queries"),
    "high": (pl.Float64, "the interval's upper end"),
}

PARAMETERS_PER_LAYER: Schema = {
    "layer": (pl.String, "parameter tensor, in model order"),
    "component": (pl.String, "its part in the model, one of COMPONENTS"),
    "block": (pl.Int32, "number of its transformer block from 0; null outside the blocks"),
    "parameters": (pl.Int64, "number of parameters"),
    "share": (pl.Float64, "its share of the model's parameters"),
}

# Tried from top to bottom on the whole name, because families reuse words: `mlp.c_proj` leads down
# and `attn.c_proj` out, `mlp.gate` routes to experts and `mlp.gate_proj` does not. Experts that are
# modules of their own call gate, up and down w1, w3 and w2.
COMPONENT_PATTERNS = {
    "norm": r"norm|\bln_",
    "bias": r"bias$",
    "head": r"lm_head|embed_out",
    "embedding": r"embed|\bwte\b|\bwpe\b",
    "attention qkv": r"qkv|query_key_value|c_attn|kv_[ab]_proj",
    "attention q": r"\bq_(a_|b_)?proj",
    "attention k": r"\bk_proj",
    "attention v": r"\bv_proj",
    "attention o": r"\bo_proj|(attn|attention)\.(out_proj|c_proj|dense)\b",
    "MLP router": r"router|(mlp|moe|expert)[._]gate\.",
    "MLP gate+up": r"gate_up_proj",
    "MLP gate": r"gate_proj|\bw1\b",
    "MLP up": r"up_proj|\bfc1\b|fc_in|c_fc|h_to_4h|\bw3\b",
    "MLP down": r"down_proj|\bfc2\b|fc_out|c_proj|4h_to_h|\bw2\b",
}

COMPONENTS = (
    "embedding",
    "attention q",
    "attention k",
    "attention v",
    "attention qkv",
    "attention o",
    "MLP router",
    "MLP gate",
    "MLP up",
    "MLP gate+up",
    "MLP down",
    "norm",
    "bias",
    "head",
    "other",
)
"""Every component, as data flows through a model."""


def component_of(layer: str) -> str:
    """The part of the model that a parameter belongs to, by the names of common families."""
    for component, pattern in COMPONENT_PATTERNS.items():
        if re.search(pattern, layer):
            return component
    return "other"


def block_of(layer: str) -> int | None:
    """The number of the transformer block in a parameter's name; None outside the blocks."""
    number = re.search(r"\.(\d+)\.", layer)
    return int(number[1]) if number else None


def similarity_to_full_gradient(layer_dots: LayerDots, *, seed: int) -> pl.DataFrame:
    """How alike each layer and the whole gradient see the pairs, in model order.

    The cosine between two vectors over all pairs: the layer's similarities and the full gradient's.

    Args:
        layer_dots: of all queries.
        seed: of the bootstrap.
    """
    evaluation = evaluate_layers(layer_dots)
    low, high = evaluation.interval(Criterion.SIMILARITY, Bootstrap(len(evaluation.credit), seed=seed))
    return pl.DataFrame({"layer": layer_dots.layers, "similarity": evaluation.similarity, "low": low, "high": high})


def parameters_per_layer(layers: pl.DataFrame) -> pl.DataFrame:
    """Component, block, size and share of each layer.

    Args:
        layers: `layer` and its number of `parameters`, in model order, null for all layers where sizes are unknown;
            other columns are ignored.

    Raises:
        TableError: a layer stands twice, or has no parameters.
    """
    for name in layers.filter(layers["layer"].is_duplicated())["layer"][:1]:
        raise TableError(f"layer {name!r} is listed twice in the model's layers")
    sizes = pl.col("parameters").cast(pl.Int64)
    unknown = layers["parameters"].null_count() == len(layers)
    for name in layers.filter(~(sizes > 0).fill_null(unknown))["layer"][:1]:
        raise TableError(f"layer {name!r} has no parameters in the model's layers")
    names = layers["layer"].cast(pl.String).to_list()
    return layers.select(
        "layer",
        pl.Series("component", [component_of(name) for name in names], dtype=pl.String),
        pl.Series("block", [block_of(name) for name in names], dtype=pl.Int32),
        sizes,
        share=sizes / sizes.sum(),
    )
