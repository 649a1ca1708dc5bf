"""Order in which a greedy selection adds layers."""

from collections.abc import Callable

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure

from gradsim.analysis.evaluation import TOLERANCE
from gradsim.analysis.selection import Criterion
from gradsim.plots.grid import LayerGrid
from gradsim.plots.labels import layer_label, percent
from gradsim.plots.layers import described
from gradsim.plots.marks import draw_rows, refuse_empty, within_hundred
from gradsim.plots.style import BLUE, FAINT, bare, new_figure, styled

FIRST_STEPS = 20
"""Number of steps with distinct colours; layers added later are grey."""


@styled
def selection_order(greedy: pl.DataFrame, parameters_per_layer: pl.DataFrame, criterion: Criterion) -> Figure:
    """Draw the first steps of a selection in the grid of blocks and components, or as a list if there are no blocks.

    Args:
        greedy: Table `greedy_by_accuracy` or `greedy_by_similarity`.
        parameters_per_layer: Table `parameters_per_layer` of the same layers; sizes may be null.
        criterion: Criterion of the selection.

    Raises:
        TableError: There are no steps, or a layer is not in `parameters_per_layer`.
    """
    refuse_empty(greedy, f"greedy_by_{criterion}", "no layer was selected")
    model_order = parameters_per_layer.select(pl.col("layer").cast(pl.String)).with_row_index("place")
    steps = described(greedy, parameters_per_layer).sort("step")
    before = pl.col("value").cum_max().shift(1, fill_value=-np.inf)
    raised = pl.col("value") > before + TOLERANCE
    steps = steps.with_columns(raised=raised).join(model_order, on="layer").sort("place")
    first = steps.filter(pl.col("step") <= FIRST_STEPS)
    title = _title(steps.sort("step"), criterion)
    if steps["block"].null_count() == len(steps):
        return _list(first.sort("step"), criterion, title)
    grid = LayerGrid.of(steps)
    figure = new_figure(title, height=grid.height)
    axes = figure.subplots()
    taken = steps["step"].to_numpy().astype(np.float64)
    early = taken <= FIRST_STEPS
    grid.draw(axes, np.where(early, np.nan, 0.0), cmap=ListedColormap([FAINT]), vmin=0, vmax=1, cbar=False)
    grid.draw(
        axes,
        np.where(early, taken, np.nan),
        cmap="cividis",
        vmin=1,
        vmax=FIRST_STEPS + 3,
        cbar=not grid.numbered,
        cbar_kws={"label": "step", "aspect": 15, "pad": 0.02, "ticks": [1, 5, 10, 15, 20]},
    )
    if grid.numbered:
        _number(axes, grid, steps)
    return figure


def _number(axes: Axes, grid: LayerGrid, steps: pl.DataFrame) -> None:
    for row, column, step, raised in zip(grid.rows, grid.columns, steps["step"], steps["raised"], strict=True):
        if step <= FIRST_STEPS:
            axes.text(
                column + 0.5,
                row + 0.5,
                str(step),
                ha="center",
                va="center",
                fontsize=8,
                fontweight="bold" if raised else "normal",
                color="white" if step <= FIRST_STEPS / 2 else "black",
            )
    axes.set_xlabel("transformer block (numbers: step, bold where the criterion improved)")


def _list(first: pl.DataFrame, criterion: Criterion, title: str) -> Figure:
    """Draw the first steps as rows with the value of the layers selected so far."""
    scale, unit = (100, "accuracy (%)") if criterion is Criterion.ACCURACY else (1, "similarity to the full gradient")
    figure = new_figure(title, height=1.1 + 0.19 * len(first))
    axes = figure.subplots()
    places = -np.arange(len(first))
    values = ("value", "low", "high")
    draw_rows(axes, places, first.with_columns(pl.col(values) * scale), values, color=BLUE, marker="o")
    axes.set_yticks(
        places, [f"{step}  {layer_label(layer)}" for step, layer in first["step", "layer"].iter_rows()], fontsize=8
    )
    axes.set_ylim(places[-1] - 0.6, 0.6)
    if criterion is Criterion.ACCURACY:
        within_hundred(axes, horizontal=True)
    axes.set_xlabel(f"{unit} of the layers so far, with 95\u00a0% intervals")
    axes.grid(axis="x")
    bare(axes)
    return figure


def _title(steps: pl.DataFrame, criterion: Criterion) -> str:
    """Return the first layer, the number of later improvements and the ties as a sentence."""

    def written(value: float) -> str:
        return percent(value) if criterion is Criterion.ACCURACY else f"{value:.3f}"

    layer, value = steps.select("layer", "value").row(0)
    first = f"The first layer selected by {criterion} is {layer_label(layer)} ({written(value)})"
    return "; ".join([first, *_rises(steps, written), *_ties(steps["tied"])])


def _rises(steps: pl.DataFrame, written: Callable[[float], str]) -> list[str]:
    """Return a clause on the steps after the first that improve on all previous values, or nothing for one step."""
    further = len(steps) - 1
    if not further:
        return []
    rises = steps[1:].filter("raised")
    if rises.is_empty():
        return ["no later step improves on it"]
    verb = "improves" if len(rises) == 1 else "improve"
    return [f"{len(rises)} of {further} later steps {verb} on it, up to {written(rises['value'][-1])}"]


def _ties(tied: pl.Series) -> list[str]:
    """Return a clause on the steps with ties, or nothing; the last step never has a choice."""
    several = (tied > 1).to_list()
    if not any(several):
        return []
    since = several.index(True)
    if all(several[since:-1]):
        return [f"from step {since + 1} on, several layers tie"]
    return [f"in {sum(several)} of {len(several)} steps, several layers tie"]
