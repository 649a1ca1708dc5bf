"""Component, block and size of each layer, and its similarity to the full gradient."""

import re

import numpy as np
import polars as pl
from numpy.typing import NDArray

from gradsim.analysis.evaluation import Criterion, evaluate_layers
from gradsim.analysis.layer_dots import LayerDots
from gradsim.analysis.schema import Column, Schema, interval
from gradsim.analysis.statistics import Bootstrap
from gradsim.errors import TableError

SIMILARITY_TO_FULL_GRADIENT: Schema = {
    "layer": Column(pl.String, "parameter tensor, in model order"),
    "similarity": Column(
        pl.Float64, "cosine between the layer's and the full gradient's similarities of all pairs; 0 if all are 0"
    ),
    **interval("interval, from a bootstrap over queries"),
}

PARAMETERS_PER_LAYER: Schema = {
    "layer": Column(pl.String, "parameter tensor, in model order"),
    "component": Column(pl.String, "component of the model, one of COMPONENTS"),
    "block": Column(pl.Int32, "number of the transformer block, from 0; null outside the blocks"),
    "parameters": Column(pl.Int64, "number of parameters"),
    "share": Column(pl.Float64, "share of the model's parameters"),
}

# Matched in this order against the whole name, because families reuse words: `mlp.c_proj` is the down projection and
# `attn.c_proj` the output projection; `mlp.gate` is an expert router and `mlp.gate_proj` is not. Experts in modules of
# their own name gate, up and down w1, w3 and w2.
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
"""All components, in the order of a model's forward pass."""


def component_of(layer: str) -> str:
    """Return the component that a parameter belongs to, from the naming of common model families."""
    for component, pattern in COMPONENT_PATTERNS.items():
        if re.search(pattern, layer):
            return component
    return "other"


def block_of(layer: str) -> int | None:
    """Return the number of the transformer block in a parameter's name, or None outside the blocks."""
    number = re.search(r"\.(\d+)\.", layer)
    return int(number[1]) if number else None


def similarity_to_full_gradient(layer_dots: LayerDots, *, seed: int) -> pl.DataFrame:
    """Return each layer's similarity to the full gradient, in model order.

    The similarity is the cosine between two vectors over all pairs: the layer's similarities and the full gradient's.
    """
    evaluation = evaluate_layers(layer_dots)
    low, high = evaluation.interval(Criterion.SIMILARITY, Bootstrap(len(evaluation.credit), seed=seed))
    return pl.DataFrame({"layer": layer_dots.layers, "similarity": evaluation.similarity, "low": low, "high": high})


def parameters_per_layer(layers: pl.DataFrame) -> pl.DataFrame:
    """Return the component, block, size and share of each layer.

    Args:
        layers: `layer` and number of `parameters`, in model order; `parameters` is null for all layers if sizes are
            unknown. Other columns are ignored.

    Raises:
        TableError: a layer is a duplicate, or has no parameters.
    """
    for name in layers.filter(layers["layer"].is_duplicated())["layer"][:1]:
        raise TableError(f"layer {name!r} is listed twice in the model's layers")
    sizes = pl.col("parameters").cast(pl.Int64)
    unknown = layers["parameters"].null_count() == len(layers)
    for name in layers.filter(~(sizes > 0).fill_null(unknown))["layer"][:1]:
        raise TableError(f"layer {name!r} has no parameters in the model's layers")
    return layers.select(
        "layer",
        pl.Series("component", [component_of(name) for name in layers["layer"]], dtype=pl.String),
        pl.Series("block", [block_of(name) for name in layers["layer"]], dtype=pl.Int32),
        sizes,
        share=sizes / sizes.sum(),
    )


def sizes_of(layers: pl.Series, parameters_per_layer: pl.DataFrame) -> NDArray[np.int64] | None:
    """Return the number of parameters of each layer, (layers,), or None if sizes are unknown.

    Args:
        layers: layer names.
        parameters_per_layer: the table `parameters_per_layer`.

    Raises:
        TableError: a layer is not in `parameters_per_layer`.
    """
    known = dict(parameters_per_layer.select("layer", "parameters").iter_rows())
    for name in layers:
        if name not in known:
            raise TableError(f"layer {name!r} is not in parameters_per_layer: materialize it again")
    sizes = [known[name] for name in layers]
    return None if None in sizes else np.array(sizes, dtype=np.int64)
