"""Layer selections within a parameter budget."""

from collections.abc import Collection

import numpy as np
import polars as pl

from gradsim.analysis.arrays import Floats, Positions
from gradsim.analysis.evaluation import TOLERANCE, Criterion, Evaluation
from gradsim.analysis.layer_dots import LayerDots
from gradsim.analysis.layers import sizes_of
from gradsim.analysis.schema import Column, Schema, column_types, interval
from gradsim.analysis.selection.curves import evaluate_prefixes
from gradsim.analysis.selection.greedy import elimination_order, greedy_order
from gradsim.analysis.statistics import Bootstrap

BUDGET_SHARES = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5)

# Relative difference up to which two budgets count as one.
SAME_BUDGET = 0.001

SELECTION_UNDER_BUDGET: Schema = {
    "criterion": Column(pl.String, "selection criterion: accuracy, or similarity to the full gradient"),
    "budget": Column(pl.Int64, "maximum total number of parameters of the selected layers"),
    "budget_share": Column(pl.Float64, "budget as a share of the model's parameters"),
    "layers": Column(pl.Int32, "number of selected layers"),
    "parameters": Column(pl.Int64, "total number of their parameters"),
    "parameter_share": Column(pl.Float64, "their share of the model's parameters"),
    "selected": Column(pl.List(pl.String), "names of the selected layers, in the order of selection"),
    "accuracy": Column(pl.Float64, "accuracy of the selected layers on the queries that selected them"),
    **interval("Wilson interval", "accuracy_low", "accuracy_high"),
    "similarity": Column(
        pl.Float64, "cosine between the selected layers' and the full gradient's similarities of all pairs"
    ),
    **interval("interval, from a bootstrap over queries with the layers fixed", "similarity_low", "similarity_high"),
}


def selection_under_budget(
    layer_dots: LayerDots, parameters_per_layer: pl.DataFrame, dimensions: Collection[int] = (), *, seed: int
) -> pl.DataFrame:
    """Select layers within budgets: shares of the model's parameters, and dimensions of projections.

    There are no rows if layer sizes are unknown. Budgets that no layer fits are left out.

    Raises:
        TableError: a layer is not in `parameters_per_layer`.
    """
    every_size = sizes_of(layer_dots.every_layer, parameters_per_layer)
    if every_size is None:
        return pl.DataFrame(schema=column_types(SELECTION_UNDER_BUDGET))
    sizes, total = every_size[: len(layer_dots.layers)], int(every_size.sum())
    budgets = set(dimensions)
    # A projection's dimension may be one of these shares up to rounding: one row covers both.
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
        "selected": layer_dots.layers.gather(chosen).to_list(),
    }
    for each in Criterion:
        ends = zip(("", "_low", "_high"), (evaluation.value(each), *evaluation.interval(each, bootstrap)), strict=True)
        row |= {f"{each}{end}": float(value[0]) for end, value in ends}
    return row


def select_within(
    layer_dots: LayerDots, criterion: Criterion, sizes: Positions, kept: Positions, budget: int
) -> Positions:
    """Return the better of two greedy selections within a parameter budget, the forward one if tied.

    Forward selection adds one layer at a time among those that still fit. Backward elimination keeps the longest prefix
    of `kept` that fits. Neither is always better, and neither is guaranteed to find the best subset. Both stop at the
    shortest selection with the highest value, so part of the budget may remain unused.

    Args:
        layer_dots: dot products of the queries to select on.
        criterion: criterion to maximize.
        sizes: number of parameters of each layer, (layers,); the smallest layer must fit.
        kept: result of `elimination_order` on the same queries.
        budget: maximum total number of parameters.
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
    """Evaluate the chosen layers together, as one column."""
    similarity = layer_dots.similarity(layer_dots.layers.gather(chosen).to_list())
    return Evaluation.of(layer_dots.lists, similarity[:, None], layer_dots.similarity())
