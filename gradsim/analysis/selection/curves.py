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
    "tied": (pl.Int64, "how many layers would have served as well at this step, the chosen one included"),
    "value": (pl.Float64, "what all layers chosen so far are worth together, on the queries that chose them"),
    "low": (
        pl.Float64,
        "lower end of the 95 % interval: Wilson's for accuracy, a bootstrap for similarity",
    ),
    "high": (pl.Float64, "the interval's upper end; of these layers, not of what other queries would choose"),
    "parameters": (pl.Int64, "parameters of all layers chosen so far; null if sizes are unknown"),
    "parameter_share": (pl.Float64, "their share of the model's parameters; null if sizes are unknown"),
}


def greedy_selection(
    layer_dots: LayerDots, parameters_per_layer: pl.DataFrame, criterion: Criterion, *, seed: int
) -> pl.DataFrame:
    """Greedy forward selection of all layers: the tables `greedy_by_accuracy` and `greedy_by_similarity`.

    Args:
        layer_dots: of all queries.
        parameters_per_layer: the table of that name; sizes may be null.
        criterion: what is to be as high as possible.
        seed: of the bootstrap.

    Raises:
        TableError: a layer is not in `parameters_per_layer`.
    """
    steps = greedy_order(layer_dots, criterion)
    valued = _valued(layer_dots, steps.order, criterion, seed).with_columns(pl.Series("tied", steps.tied))
    return with_parameters(valued, layer_dots.every_layer, parameters_per_layer).select(GREEDY.keys())


def with_parameters(selection: pl.DataFrame, layers: pl.Series, parameters_per_layer: pl.DataFrame) -> pl.DataFrame:
    """A selection with `parameters` and `parameter_share` of the layers so far; null if sizes are unknown.

    Args:
        selection: `layer`, in the order of the selection.
        layers: all of the model's.
        parameters_per_layer: the table of that name.

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
    """What the first, the first two, ... of these layers are worth on the queries of `layer_dots`.

    Args:
        layer_dots: of the queries to judge by.
        layers: names, in the order of the selection, wherever it was made.
        criterion: the value.
        seed: of the bootstrap.

    Returns:
        `step`, `layer`, `value`, `low`, `high`, as the table `greedy_by_accuracy` has them.

    Raises:
        TableError: a layer is not in the tables, stands twice, or none is named.
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
    """Of the first, the first two, ... layers of an order; one column a step."""
    evaluation = Evaluation.empty(len(layer_dots.query_self_dots), len(order))
    for queries, part in in_parts(layer_dots):
        dots, query_self, original_self = (
            np.cumsum(table[:, order], axis=1) for table in (part.dots, part.query_self_dots, part.original_self_dots)
        )
        similarities = cosine(dots, query_self[part.lists.query], original_self[part.original])
        evaluation.add(Evaluation.of(part.lists, similarities, part.similarity()), queries)
    return evaluation
