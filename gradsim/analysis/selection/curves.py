"""What each step of a selection of layers is worth."""

from collections.abc import Sequence

import numpy as np
import polars as pl
from numpy.typing import NDArray

from gradsim.analysis.evaluation import Criterion, Evaluation
from gradsim.analysis.layer_dots import LayerDots, cosine
from gradsim.analysis.layer_evaluation import in_parts
from gradsim.analysis.schema import Schema
from gradsim.analysis.selection.greedy import greedy_order
from gradsim.analysis.selection.sizes import sizes_of
from gradsim.analysis.statistics import Bootstrap

Floats = NDArray[np.float64]
Positions = NDArray[np.int64]

GREEDY: Schema = {
    "step": (pl.Int32, "number of layers chosen so far"),
    "layer": (pl.String, "the layer that this step chooses, the first in model order of equal ones"),
    "value": (pl.Float64, "what all layers chosen so far are worth together, on the queries that chose them"),
    "low": (pl.Float64, "lower end of the 95 % interval, a bootstrap over queries of these layers"),
    "high": (pl.Float64, "the interval's upper end"),
    "parameters": (pl.Int64, "parameters of all layers chosen so far; null if sizes are unknown"),
    "parameter_share": (pl.Float64, "their share of the model's parameters; null if sizes are unknown"),
}


def greedy_selection(
    layer_dots: LayerDots, parameters_per_layer: pl.DataFrame, criterion: Criterion, *, seed: int
) -> pl.DataFrame:
    """Greedy forward selection of all layers: the tables `greedy_by_accuracy` and `greedy_by_similarity`.

    Args:
        layer_dots: of all queries.
        parameters_per_layer: the table of that name.
        criterion: what is to be as high as possible.
        seed: of the bootstrap.

    Raises:
        TableError: a layer has no size in `parameters_per_layer`.
    """
    order, _ = greedy_order(layer_dots, criterion)
    layers = layer_dots.layers.gather(order)
    return value_of_selection(layer_dots, layers.to_list(), parameters_per_layer, criterion, seed=seed)


def value_of_selection(
    layer_dots: LayerDots,
    layers: Sequence[str],
    parameters_per_layer: pl.DataFrame,
    criterion: Criterion,
    *,
    seed: int,
) -> pl.DataFrame:
    """What the first, the first two, ... of these layers are worth on the queries of `layer_dots`.

    Args:
        layer_dots: of the queries to judge by.
        layers: names, in the order of the selection, wherever it was made.
        parameters_per_layer: the table of that name.
        criterion: the value.
        seed: of the bootstrap.

    Raises:
        TableError: a layer is not in the tables, or stands twice.
    """
    order = layer_dots.positions_of(layers)
    evaluation = evaluate_prefixes(layer_dots, order)
    low, high = evaluation.interval(criterion, Bootstrap(len(evaluation.credit), seed=seed))
    sizes = sizes_of(layer_dots.layers, parameters_per_layer)
    parameters = pl.Series(None if sizes is None else np.cumsum(sizes[order]), dtype=pl.Int64)
    return pl.DataFrame(
        {
            "step": pl.int_range(1, len(order) + 1, dtype=pl.Int32, eager=True),
            "layer": layer_dots.layers.gather(order),
            "value": evaluation.value(criterion),
            "low": low,
            "high": high,
        }
    ).with_columns(
        parameters=pl.lit(None, pl.Int64) if sizes is None else parameters,
        parameter_share=pl.lit(None, pl.Float64) if sizes is None else parameters / sizes.sum(),
    )


def evaluate_prefixes(layer_dots: LayerDots, order: Positions) -> Evaluation:
    """Of the first, the first two, ... layers of an order; one column a step."""
    evaluation = Evaluation.empty(len(layer_dots.query_self_dots), len(order))
    for queries, part in in_parts(layer_dots):
        dots, query_self, original_self = (
            np.cumsum(table[:, order], axis=1) for table in (part.dots, part.query_self_dots, part.original_self_dots)
        )
        similarities = cosine(dots, query_self[part.lists.query], original_self[part.original])
        evaluation.add(Evaluation.of(part.lists, similarities, part.similarity()), queries)
    return evaluation
