"""Selections of layers that have at most so many parameters."""

from collections.abc import Collection

import numpy as np
import polars as pl
from numpy.typing import NDArray

from gradsim.analysis.evaluation import TOLERANCE, Criterion, Evaluation
from gradsim.analysis.layer_dots import LayerDots
from gradsim.analysis.schema import Schema, column_types
from gradsim.analysis.selection.curves import evaluate_prefixes
from gradsim.analysis.selection.greedy import elimination_order, greedy_order
from gradsim.analysis.selection.sizes import sizes_of
from gradsim.analysis.statistics import Bootstrap

Floats = NDArray[np.float64]
Positions = NDArray[np.int64]

BUDGET_SHARES = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5)

# Of a budget's size: budgets that are nearer to each other are one.
SAME_BUDGET = 0.001

SELECTION_UNDER_BUDGET: Schema = {
    "criterion": (pl.String, "accuracy, or similarity to the full gradient: what layers are selected by"),
    "budget": (pl.Int64, "how many parameters the layers may have in all"),
    "budget_share": (pl.Float64, "the same as a share of the model's parameters"),
    "layers": (pl.Int32, "number of layers selected"),
    "parameters": (pl.Int64, "their parameters in all"),
    "parameter_share": (pl.Float64, "their share of the model's parameters"),
    "selected": (pl.List(pl.String), "their names, in the order in which they were selected"),
    "accuracy": (pl.Float64, "accuracy by these layers, on the queries that selected them"),
    "accuracy_low": (pl.Float64, "lower end of Wilson's 95 % interval"),
    "accuracy_high": (pl.Float64, "the interval's upper end"),
    "similarity": (pl.Float64, "cosine of all pairs' similarities by these layers with the full gradient's"),
    "similarity_low": (pl.Float64, "lower end of its 95 % interval, a bootstrap over queries of these layers"),
    "similarity_high": (pl.Float64, "the interval's upper end"),
}


def selection_under_budget(
    layer_dots: LayerDots, parameters_per_layer: pl.DataFrame, dimensions: Collection[int] = (), *, seed: int
) -> pl.DataFrame:
    """Selections for budgets of some shares of the model's parameters, and of the dimensions of projections.

    No rows where the layers' sizes are unknown; budgets that no layer fits are left out.

    Args:
        layer_dots: of all queries.
        parameters_per_layer: the table of that name.
        dimensions: of projected gradients.
        seed: of the bootstrap.
    """
    every_size = sizes_of(layer_dots.every_layer, parameters_per_layer)
    if every_size is None:
        return pl.DataFrame(schema=column_types(SELECTION_UNDER_BUDGET))
    sizes, total = every_size[: len(layer_dots.layers)], int(every_size.sum())
    budgets = set(dimensions)
    # A projection's dimensions are such a share, but for rounding: one row says both.
    for budget in (int(share * total) for share in BUDGET_SHARES):
        if not any(abs(budget - dimension) <= SAME_BUDGET * budget for dimension in dimensions):
            budgets.add(budget)
    bootstrap = Bootstrap(len(layer_dots.query_self_dots), seed=seed)
    rows = [
        _row(layer_dots, sizes, total, criterion, kept, budget, bootstrap)
        for criterion in Criterion
        for kept in [elimination_order(layer_dots, criterion)]
        for budget in sorted(budgets)
        if sizes.min() <= budget
    ]
    return pl.DataFrame(rows, schema=column_types(SELECTION_UNDER_BUDGET))


def _row(
    layer_dots: LayerDots,
    sizes: Positions,
    total: int,
    criterion: Criterion,
    kept: Positions,
    budget: int,
    bootstrap: Bootstrap,
) -> dict[str, object]:
    chosen = select_within(layer_dots, criterion, sizes, kept, budget)
    evaluation = evaluate_selection(layer_dots, chosen)
    parameters = int(sizes[chosen].sum())
    row: dict[str, object] = {
        "criterion": str(criterion),
        "budget": budget,
        "budget_share": budget / total,
        "layers": len(chosen),
        "parameters": parameters,
        "parameter_share": parameters / total,
        "selected": layer_dots.layers.gather(chosen).cast(pl.String).to_list(),
    }
    for each in Criterion:
        ends = zip(("", "_low", "_high"), (evaluation.value(each), *evaluation.interval(each, bootstrap)), strict=True)
        row |= {f"{each}{end}": float(value[0]) for end, value in ends}
    return row


def select_within(
    layer_dots: LayerDots, criterion: Criterion, sizes: Positions, kept: Positions, budget: int
) -> Positions:
    """The better of two greedy selections that have at most so many parameters, forward if they are equal.

    Forward: layers chosen one by one among those that still fit. Backward: what an elimination keeps. Neither is
    always better, and neither is sure to find the best of all subsets. A budget need not be used up: of either, the
    shortest selection that reaches its highest value is taken.

    Args:
        layer_dots: of the queries to select on.
        criterion: what is to be as high as possible.
        sizes: (layers,) parameters of each layer, of which the smallest fits.
        kept: of `elimination_order`, on the same queries.
        budget: at most so many parameters.
    """
    forward = greedy_order(layer_dots, criterion, sizes=sizes, budget=budget)
    chosen, value = _shortest_best(forward.order, forward.values)
    fitting = kept[np.cumsum(sizes[kept]) <= budget]
    if len(fitting):
        backward, other = _shortest_best(fitting, evaluate_prefixes(layer_dots, fitting).value(criterion))
        if other > value + TOLERANCE:
            return backward
    return chosen


def _shortest_best(order: Positions, values: Floats) -> tuple[Positions, float]:
    best = int(np.flatnonzero(values >= values.max() - TOLERANCE)[0])
    return order[: best + 1], float(values[best])


def evaluate_selection(layer_dots: LayerDots, chosen: Positions) -> Evaluation:
    """Of these layers together; one column."""
    similarity = layer_dots.similarity(layer_dots.layers.gather(chosen).cast(pl.String).to_list())
    return Evaluation.of(layer_dots.lists, similarity[:, None], layer_dots.similarity())
