"""Means over layers by component, part and block, and attention against MLP layers."""

from dataclasses import dataclass

import numpy as np
import polars as pl

from gradsim.analysis.arrays import Floats, Members
from gradsim.analysis.evaluation import Criterion, evaluate_layers
from gradsim.analysis.layer_dots import LayerDots
from gradsim.analysis.schema import Column, Schema, interval
from gradsim.analysis.statistics import Bootstrap, percentile_interval
from gradsim.errors import TableError

LAYER_MEANS: Schema = {
    "grouping": Column(
        pl.String,
        "component; part: first word of the component; block: transformer block, without layers outside the blocks",
    ),
    "group": Column(pl.String, "name of the component or part, or number of the block"),
    "layers": Column(pl.Int64, "number of layers in the group"),
    "accuracy": Column(pl.Float64, "mean over these layers of the accuracy of each layer alone"),
    **interval("interval, from a bootstrap over queries with the layers fixed", "accuracy_low", "accuracy_high"),
    "similarity": Column(pl.Float64, "mean over these layers of the similarity of each to the full gradient"),
    **interval("interval, from a bootstrap over queries with the layers fixed", "similarity_low", "similarity_high"),
}

ATTENTION_AGAINST_MLP: Schema = {
    "block": Column(pl.Int32, "number of the transformer block, from 0; null for the whole model"),
    "accuracy_difference": Column(
        pl.Float64,
        "mean accuracy of single attention layers minus that of single MLP layers; positive if attention is better",
    ),
    **interval("interval, from a paired bootstrap over queries", "accuracy_low", "accuracy_high"),
    "similarity_difference": Column(
        pl.Float64, "mean similarity of attention layers to the full gradient minus that of MLP layers"
    ),
    **interval("interval, from a paired bootstrap over queries", "similarity_low", "similarity_high"),
}


def layer_means(layer_dots: LayerDots, parameters_per_layer: pl.DataFrame, *, seed: int) -> pl.DataFrame:
    """Compute the mean accuracy and mean similarity to the full gradient of each component, part and block.

    Components and parts are in model order, blocks in numerical order. Intervals cover variation over queries; layers
    are not resampled.

    Raises:
        TableError: a layer is missing from `parameters_per_layer` or is a duplicate there.
    """
    layers = _described(layer_dots, parameters_per_layer)
    blocks = layers["block"].drop_nulls().unique().sort()
    groups = [
        (grouping, str(group), (layers[grouping] == group).fill_null(False).to_numpy())
        for grouping, names in (
            ("component", layers["component"].unique(maintain_order=True)),
            ("part", layers["part"].unique(maintain_order=True)),
            ("block", blocks),
        )
        for group in names
    ]
    members = np.stack([of_group for _, _, of_group in groups])
    means = _Means.of(layer_dots, members, seed)
    (accuracy_low, accuracy_high), (similarity_low, similarity_high) = (
        percentile_interval(draws) for draws in (means.accuracy_draws, means.similarity_draws)
    )
    return pl.DataFrame(
        {
            "grouping": [grouping for grouping, _, _ in groups],
            "group": [group for _, group, _ in groups],
            "layers": members.sum(axis=1),
            "accuracy": means.accuracy,
            "accuracy_low": accuracy_low,
            "accuracy_high": accuracy_high,
            "similarity": means.similarity,
            "similarity_low": similarity_low,
            "similarity_high": similarity_high,
        }
    )


def attention_against_mlp(layer_dots: LayerDots, parameters_per_layer: pl.DataFrame, *, seed: int) -> pl.DataFrame:
    """Compare attention layers with MLP layers: first in the whole model, then in each block that has both.

    There are no rows if the model does not have both.

    Raises:
        TableError: a layer is missing from `parameters_per_layer` or is a duplicate there.
    """
    layers = _described(layer_dots, parameters_per_layer)
    attention, mlp = ((layers["part"] == part).to_numpy() for part in ("attention", "MLP"))
    places: list[tuple[int | None, Members]] = [(None, np.ones(len(layers), dtype=np.bool_))]
    places += [
        (block, (layers["block"] == block).fill_null(False).to_numpy())
        for block in layers["block"].drop_nulls().unique().sort()
    ]
    both = [(block, here) for block, here in places if (attention & here).any() and (mlp & here).any()]
    members = [part & here for part in (attention, mlp) for _, here in both]
    means = _Means.of(layer_dots, np.array(members, dtype=np.bool_).reshape(-1, len(layers)), seed)
    columns: dict[str, object] = {"block": pl.Series([block for block, _ in both], dtype=pl.Int32)}
    for name, values, draws in (
        ("accuracy", means.accuracy, means.accuracy_draws),
        ("similarity", means.similarity, means.similarity_draws),
    ):
        of_attention, of_mlp = np.split(values, 2)
        low, high = percentile_interval(np.subtract(*np.split(draws, 2, axis=1)))
        columns |= {f"{name}_difference": of_attention - of_mlp, f"{name}_low": low, f"{name}_high": high}
    return pl.DataFrame(columns)


@dataclass(frozen=True)
class _Means:
    """Means over groups of layers, for all queries and for bootstrap resamples.

    Attributes:
        accuracy: mean accuracy of the layers, (groups,).
        accuracy_draws: resampled mean accuracy, (resamples, groups).
        similarity: mean similarity to the full gradient, (groups,).
        similarity_draws: resampled mean similarity, (resamples, groups).
    """

    accuracy: Floats
    accuracy_draws: Floats
    similarity: Floats
    similarity_draws: Floats

    @classmethod
    def of(cls, layer_dots: LayerDots, members: Members, seed: int) -> "_Means":
        """Compute the means.

        Args:
            layer_dots: dot products of all queries.
            members: mask of the layers in each group, (groups, layers).
            seed: seed of the bootstrap.
        """
        sizes = members.sum(axis=1)
        evaluation = evaluate_layers(layer_dots)
        bootstrap = Bootstrap(len(evaluation.credit), seed=seed)
        per_layer = (
            evaluation.accuracy,
            evaluation.draws(Criterion.ACCURACY, bootstrap),
            evaluation.similarity,
            evaluation.draws(Criterion.SIMILARITY, bootstrap),
        )
        # einsum sums in the same order for any number of threads.
        return cls(*(np.einsum("...l,gl->...g", values, members.astype(np.float64)) / sizes for values in per_layer))


def _described(layer_dots: LayerDots, parameters_per_layer: pl.DataFrame) -> pl.DataFrame:
    """Return `component`, `part` and `block` of each layer of `layer_dots`, in model order."""
    names = pl.col("layer").cast(pl.String)
    known = parameters_per_layer.select(
        names, "component", "block", part=pl.col("component").str.split(" ").list.first(), known=True
    )
    for name in known.filter(known["layer"].is_duplicated())["layer"][:1]:
        raise TableError(f"layer {name!r} is listed twice in parameters_per_layer: materialize it again")
    layers = layer_dots.layers.to_frame("layer").select(names)
    described = layers.join(known, on="layer", how="left", maintain_order="left")
    for name in described.filter(pl.col("known").is_null())["layer"][:1]:
        raise TableError(f"layer {name!r} is not in parameters_per_layer: materialize it again")
    return described
