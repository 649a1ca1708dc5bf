"""Value of each step of a layer selection."""

from collections.abc import Sequence

import numpy as np
import polars as pl

from gradsim.analysis.arrays import Positions
from gradsim.analysis.evaluation import Criterion, Evaluation, in_parts
from gradsim.analysis.layer_dots import LayerDots, cosine
from gradsim.analysis.layers import sizes_of
from gradsim.analysis.schema import Column, Schema
from gradsim.analysis.selection.greedy import greedy_order
from gradsim.analysis.statistics import Bootstrap

GREEDY: Schema = {
    "step": Column(pl.Int32, "number of layers chosen so far"),
    "layer": Column(pl.String, "the layer chosen in this step, the first in model order if tied"),
    "tied": Column(pl.Int64, "number of layers tied for this step, including the chosen one"),
    "value": Column(pl.Float64, "joint value of all layers chosen so far, on the queries that chose them"),
    "low": Column(pl.Float64, "lower end of the 95 % interval: Wilson for accuracy, bootstrap for similarity"),
    "high": Column(
        pl.Float64, "upper end of the interval, with the layers fixed: other queries might choose other layers"
    ),
    "parameters": Column(pl.Int64, "total number of parameters of the layers chosen so far; null if sizes are unknown"),
    "parameter_share": Column(pl.Float64, "their share of the model's parameters; null if sizes are unknown"),
}


def greedy_selection(
    layer_dots: LayerDots, parameters_per_layer: pl.DataFrame, criterion: Criterion, *, seed: int
) -> pl.DataFrame:
    """Run greedy forward selection over all layers: the tables `greedy_by_accuracy` and `greedy_by_similarity`.

    Raises:
        TableError: a layer is not in `parameters_per_layer`.
    """
    steps = greedy_order(layer_dots, criterion)
    valued = _valued(layer_dots, steps.order, criterion, seed).with_columns(pl.Series("tied", steps.tied))
    return with_parameters(valued, layer_dots.every_layer, parameters_per_layer).select(GREEDY.keys())


def with_parameters(selection: pl.DataFrame, layers: pl.Series, parameters_per_layer: pl.DataFrame) -> pl.DataFrame:
    """Add cumulative `parameters` and `parameter_share` to a selection; null if sizes are unknown.

    Args:
        selection: `layer`, in the order of the selection.
        layers: names of all layers of the model.
        parameters_per_layer: the table `parameters_per_layer`.

    Raises:
        TableError: a layer is not in `parameters_per_layer`.
    """
    sizes, every = (sizes_of(names, parameters_per_layer) for names in (selection["layer"], layers))
    unknown = [None] * len(selection)
    parameters = unknown if sizes is None else np.cumsum(sizes)
    share = unknown if sizes is None or every is None else np.cumsum(sizes) / every.sum()
    return selection.with_columns(
        pl.Series("parameters", parameters, dtype=pl.Int64), pl.Series("parameter_share", share, dtype=pl.Float64)
    )


def value_of_selection(
    layer_dots: LayerDots, layers: Sequence[str], criterion: Criterion, *, seed: int
) -> pl.DataFrame:
    """Return the value of the first, the first two, ... of these layers on the queries of `layer_dots`.

    Args:
        layer_dots: dot products of the queries to evaluate on.
        layers: layer names in the order of a selection, which may come from other queries.
        criterion: value to compute.
        seed: seed of the bootstrap.

    Returns:
        `step`, `layer`, `value`, `low` and `high`, as in the table `greedy_by_accuracy`.

    Raises:
        TableError: a layer is unknown, holds only rounding error or is named twice, or `layers` is empty.
    """
    return _valued(layer_dots, layer_dots.positions_of(layers), criterion, seed)


def _valued(layer_dots: LayerDots, order: Positions, criterion: Criterion, seed: int) -> pl.DataFrame:
    evaluation = evaluate_prefixes(layer_dots, order)
    low, high = evaluation.interval(criterion, Bootstrap(len(evaluation.credit), seed=seed))
    return pl.DataFrame(
        {
            "step": pl.int_range(1, len(order) + 1, dtype=pl.Int32, eager=True),
            "layer": layer_dots.layers.gather(order),
            "value": evaluation.value(criterion),
            "low": low,
            "high": high,
        }
    )


def evaluate_prefixes(layer_dots: LayerDots, order: Positions) -> Evaluation:
    """Evaluate the first, the first two, ... layers of an order, one column per step."""
    evaluation = Evaluation.empty(len(layer_dots.query_self_dots), len(order))
    for queries, part in in_parts(layer_dots):
        dots, query_self, original_self = (
            np.cumsum(table[:, order], axis=1) for table in (part.dots, part.query_self_dots, part.original_self_dots)
        )
        similarities = cosine(dots, query_self[part.lists.query], original_self[part.original])
        evaluation.add(Evaluation.of(part.lists, similarities, part.similarity()), queries)
    return evaluation
