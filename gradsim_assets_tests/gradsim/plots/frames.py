"""Analysis tables of studies that never were, of any number of layers, queries and projections."""

from collections.abc import Mapping, Sequence

import numpy as np
import polars as pl

from gradsim import analysis
from gradsim.analysis import SCHEMAS, Criterion

PARTS = ("self_attn.q_proj", "self_attn.k_proj", "mlp.up_proj", "mlp.down_proj", "norm_1", "norm_2")
NULL = pl.lit(None, pl.Float64)
Values = Sequence[float] | np.ndarray | pl.Series


def layer_names(n_blocks: int, parts: Sequence[str] = PARTS) -> list[str]:
    inside = [f"model.layers.{block}.{part}.weight" for block in range(n_blocks) for part in parts]
    return ["model.embed_tokens.weight", *inside, "lm_head.weight"]


def pairs(n_queries: int = 30, n_candidates: int = 4, lift: float = 0.3) -> pl.DataFrame:
    """Similarities of random candidates; the sources, at rank 0, lie higher by `lift`."""
    random = np.random.default_rng(7)
    rows = [
        (f"s{query}", f"s{(query + rank) % n_queries}", rank, random.normal(0, 0.2) + lift * (rank == 0))
        for query in range(n_queries)
        for rank in range(n_candidates)
    ]
    return pl.DataFrame(rows, schema=["query_id", "original_id", "rank", "similarity"], orient="row")


def parameters(layers: Sequence[str], *, sized: bool = True) -> pl.DataFrame:
    """Layers of the same part have the same size."""
    sizes = [10 + len(layer.split(".", 3)[-1]) for layer in layers]
    table = analysis.parameters_per_layer(pl.DataFrame({"layer": layers, "parameters": sizes}))
    return table if sized else table.with_columns(parameters=NULL.cast(pl.Int64), share=NULL)


def accuracy_per_layer(layers: Sequence[str], accuracy: Values | None = None) -> pl.DataFrame:
    """Of 50 queries each; all different, later layers better, unless the accuracy is given."""
    found = np.linspace(0.2, 0.9, len(layers)) if accuracy is None else np.asarray(accuracy)
    low, high = analysis.wilson_interval(found * 50, 50)
    return pl.DataFrame({"layer": layers, "accuracy": found, "low": low, "high": high})


def similarity_to_full_gradient(layers: Sequence[str]) -> pl.DataFrame:
    similarity = np.linspace(0.2, 0.9, len(layers)) ** 2
    return pl.DataFrame(
        {"layer": layers, "similarity": similarity, "low": similarity - 0.02, "high": similarity + 0.01}
    )


def layer_differences(layers: Sequence[str], apart: int) -> pl.DataFrame:
    """Layers that are better the later they come, told apart where at least so many places lie between."""
    first, second = np.triu_indices(len(layers), 1)
    names = np.array(layers)
    return pl.DataFrame(
        {
            "layer": names[first],
            "other_layer": names[second],
            "difference": (first - second) / len(layers),
            "only_layer": np.zeros(len(first), dtype=np.int64),
            "only_other": second - first,
            "p": np.full(len(first), 0.001),
            "p_holm": np.where(second - first >= apart, 0.01, 1.0),
        }
    )


def layer_means(groups: Mapping[str, Sequence[tuple[str, float]]]) -> pl.DataFrame:
    """From grouping -> (group, accuracy)."""
    rows = [
        (grouping, group, 2, accuracy, accuracy - 0.05, accuracy + 0.02, accuracy / 2, accuracy / 3, accuracy)
        for grouping, members in groups.items()
        for group, accuracy in members
    ]
    return pl.DataFrame(rows, schema=types("layer_means"), orient="row")


def attention_against_mlp(differences: dict[int | None, tuple[float, float, float]]) -> pl.DataFrame:
    """From block -> difference and ends, which similarity has as well, a tenth of it."""
    rows = [(block, *values, *(value / 10 for value in values)) for block, values in differences.items()]
    return pl.DataFrame(rows, schema=types("attention_against_mlp"), orient="row")


def greedy(
    layers: Sequence[str],
    values: Sequence[float] | None = None,
    sizes: pl.DataFrame | None = None,
    tied: Sequence[int] | None = None,
) -> pl.DataFrame:
    """Takes the layers from last to first; without `sizes` these are unknown, without `tied` no step has ties."""
    value = np.linspace(0.9, 0.5, len(layers)) if values is None else np.asarray(values)
    table = pl.DataFrame(
        {
            "step": pl.int_range(1, len(layers) + 1, dtype=pl.Int32, eager=True),
            "layer": list(layers)[::-1],
            "tied": [1] * len(layers) if tied is None else tied,
            "value": value,
            "low": value - 0.05,
            "high": value + 0.05,
        }
    )
    if sizes is None:
        return table.with_columns(parameters=NULL.cast(pl.Int64), parameter_share=NULL)
    cumulated = sizes["parameters"].reverse().cum_sum()
    return table.with_columns(parameters=cumulated, parameter_share=cumulated / sizes["parameters"].sum())


def held_out(selection: pl.DataFrame, optimism: float = 0.1) -> pl.DataFrame:
    """Both criteria; other queries are worth less by `optimism`."""
    held = pl.col("value") - optimism
    return pl.concat(
        selection.select(
            pl.lit(str(criterion)).alias("criterion"),
            "step",
            in_sample="value",
            held_out=held,
            low=held - 0.03,
            high=held + 0.03,
            parameter_share="parameter_share",
        )
        for criterion in Criterion
    )


def accuracy(methods: dict[str, float], queries: int = 50) -> pl.DataFrame:
    rows = [
        (method, "all", share, *map(float, analysis.wilson_interval(share * queries, queries)), queries, 0)
        for method, share in methods.items()
    ]
    return pl.DataFrame(rows, schema=types("accuracy"), orient="row")


def contests(differences: Sequence[tuple[str, int, str, float, float, float]]) -> pl.DataFrame:
    """`select_or_project` from projection, dimension, criterion, and the difference of accuracy with its ends."""
    rows = [
        {
            "projection": projection,
            "dimension": dimension,
            "criterion": criterion,
            "layers": 2,
            "parameters": dimension - 1,
            "selected_accuracy": 0.5 + difference,
            "projected_accuracy": 0.5,
            "difference": difference,
            "low": low,
            "high": high,
            "only_selected": 3,
            "only_projected": 1,
            "p": 0.5,
            "p_holm": 1.0,
            "selected_similarity": 0.8,
            "projected_similarity": 0.9,
            "similarity_difference": -0.1,
            "similarity_low": -0.2,
            "similarity_high": -0.05,
        }
        for projection, dimension, criterion, difference, low, high in differences
    ]
    return pl.DataFrame(rows, schema=types("select_or_project"))


def transfer(settings: Sequence[str], own: Values, value: Values) -> pl.DataFrame:
    """Every pair of settings and either criterion alike."""
    rows = [
        (str(criterion), source, target, step, worth, worth - 0.02, worth + 0.02, best)
        for criterion in Criterion
        for source in settings
        for target in settings
        if source != target
        for step, (best, worth) in enumerate(zip(own, value, strict=True), 1)
    ]
    return pl.DataFrame(rows, schema=types("selection_transfer"), orient="row")


def retrieval(recall: dict[str, dict[int, float]]) -> pl.DataFrame:
    """From method -> k -> recall."""
    rows: list[tuple[object, ...]] = []
    for method, shares in recall.items():
        rows += [(method, "all", "recall", k, share, share - 0.04, share + 0.03, 50) for k, share in shares.items()]
        rows.append((method, "all", "mean_reciprocal_rank", None, 0.625, 0.6, 0.7, 50))
    return pl.DataFrame(rows, schema=types("retrieval"), orient="row")


def over_layers(layers: Sequence[str], candidates: Mapping[str, Values], query: str = "s0") -> pl.DataFrame:
    """`similarity_over_layers` from candidate -> similarity by each layer."""
    rows = [
        (query, original, rank, layer, similarity)
        for rank, (original, similarities) in enumerate(candidates.items())
        for layer, similarity in zip(layers, similarities, strict=True)
    ]
    return pl.DataFrame(rows, schema=types("similarity_over_layers"), orient="row")


def projection_audit(ratios: dict[str, float]) -> pl.DataFrame:
    """From projection -> how many times the error that theory gives."""
    rows = [
        (name, 12_000, 50, 0.0, 0.01 * ratio, 0.01, ratio, 0.9, 0.8, 0.95, 0.95, 0.92) for name, ratio in ratios.items()
    ]
    return pl.DataFrame(rows, schema=types("projection_audit"), orient="row")


def audit(layers: list[str], **errors: float) -> pl.DataFrame:
    """Dots of one pair and self dots of its query; errors of layers that are not 1e-8 are given by their numbers."""
    found = [errors.get(f"at_{number}", 1e-8) for number in range(len(layers))]
    dots = pl.DataFrame(
        {"query_id": "a", "original_id": "b", "quantity": "dot", "layer": layers, "error": found, "loss": 2.0}
    )
    return pl.concat([dots, dots.with_columns(original_id=None, quantity=pl.lit("query_self"))])


def types(table: str) -> dict[str, pl.DataType | type[pl.DataType]]:
    return {name: dtype for name, (dtype, _) in SCHEMAS[table].items()}
