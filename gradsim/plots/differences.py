"""Significance of differences in accuracy between layers."""

from typing import Any

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gradsim.analysis.arrays import Positions
from gradsim.analysis.layers import COMPONENTS, component_of
from gradsim.analysis.statistics import SIGNIFICANT
from gradsim.errors import TableError
from gradsim.plots.labels import layer_label, percent
from gradsim.plots.marks import draw_columns, within_hundred
from gradsim.plots.style import BLUE, COMPONENT_COLOURS, COMPONENT_MARKERS, FAINT, INK, MUTED, new_figure, styled

MOST_NAMED = 40
"""Maximum number of layers with names on the axis."""


@styled
def differences_of_layers(layer_differences: pl.DataFrame, accuracy_per_layer: pl.DataFrame) -> Figure:
    """Draw layers in order of accuracy, with 95 % intervals, and confidence sets for their ranks.

    The best possible rank of a layer follows all layers that are significantly more accurate; the worst possible rank
    precedes all layers that are significantly less accurate. The tests of all pairs share one Holm correction, so all
    rank sets hold simultaneously with 95 % confidence: M. Mogstad, J. Romano, A. Shaikh and D. Wilhelm, "Inference for
    Ranks with Applications to Mobility across Neighbourhoods and Academic Achievement across Countries", Review of
    Economic Studies 91 (2024).

    Raises:
        TableError: A layer of `layer_differences` is not in `accuracy_per_layer`.
    """
    layers = accuracy_per_layer
    better, worse = _told_apart(layer_differences, layers["layer"].to_list())
    shares = ("accuracy", "low", "high")
    layers = (
        layers.with_columns(
            pl.col(shares) * 100,
            first=1 + pl.Series(better),
            last=len(layers) - pl.Series(worse),
            component=pl.Series([component_of(layer) for layer in layers["layer"]]),
        )
        .sort("accuracy", descending=True, maintain_order=True)
        .with_row_index("place", offset=1)
    )
    named = len(layers) <= MOST_NAMED
    figure = new_figure(_title(layers), height=5.6 if named else 5.2)
    accuracies, ranges = figure.subplots(2, 1, sharex=True, height_ratios=(1, 1.15))
    _draw_accuracies(accuracies, layers)
    _draw_ranges(ranges, layers)
    if named:
        names = [layer_label(layer) for layer in layers["layer"]]
        ranges.set_xticks(layers["place"], names, rotation=90, fontsize=7)
    else:
        ranges.set_xticks(_places(len(layers)))
        ranges.set_xlabel("layers in order of accuracy, best first")
    figure.legend(loc="outside lower left", ncols=5, handletextpad=0.2, columnspacing=1)
    return figure


def _told_apart(layer_differences: pl.DataFrame, layers: list[str]) -> tuple[Positions, Positions]:
    """Return the numbers of layers that are significantly more and less accurate than each layer, (n_layers,) each."""
    place = {layer: position for position, layer in enumerate(layers)}
    significant = layer_differences.filter(pl.col("p_holm") < SIGNIFICANT)
    for name in [*significant["layer"], *significant["other_layer"]]:
        if name not in place:
            raise TableError(f"layer {name!r} is not in accuracy_per_layer: materialize that table again")
    first, second = ([place[name] for name in significant[column]] for column in ("layer", "other_layer"))
    ahead = (significant["only_layer"] > significant["only_other"]).to_numpy()
    winners, losers = np.where(ahead, first, second), np.where(ahead, second, first)
    better = np.bincount(losers.astype(np.int64), minlength=len(layers))
    worse = np.bincount(winners.astype(np.int64), minlength=len(layers))
    return better, worse


def _draw_accuracies(axes: Axes, layers: pl.DataFrame) -> None:
    size = max(2, min(4.5, 500 / len(layers)))
    named = len(layers) <= MOST_NAMED
    if not named:  # lines of so many intervals would cover each other
        axes.fill_between(layers["place"], layers["low"], layers["high"], color=FAINT, linewidth=0)
    for component in COMPONENTS:
        rows = layers.filter(pl.col("component") == component)
        if rows.is_empty():
            continue
        colour = COMPONENT_COLOURS.get(component, MUTED)
        looks: dict[str, Any] = {"color": colour, "marker": COMPONENT_MARKERS[component], "label": component}
        if named:
            draw_columns(axes, rows["place"], rows, ("accuracy", "low", "high"), markersize=size, **looks)
        else:
            axes.plot(rows["place"], rows["accuracy"], linestyle="none", markersize=size, **looks)
    within_hundred(axes)
    axes.set_title("single-layer accuracy (%)")
    axes.grid(axis="y")


def _draw_ranges(axes: Axes, layers: pl.DataFrame) -> None:
    """Draw the range of possible ranks of each layer, highlighting layers that may be the best."""
    width = min(8.0, 250 / len(layers))
    for rows, colour in ((layers.filter(pl.col("first") > 1), FAINT), (layers.filter(pl.col("first") == 1), BLUE)):
        # Extend ranges by half a rank on both ends, so that a single rank is visible.
        axes.vlines(rows["place"], rows["first"] - 0.5, rows["last"] + 0.5, color=colour, linewidth=width)
    axes.plot(layers["place"], layers["place"], "_", color=INK, markersize=width, markeredgewidth=1)
    axes.set_yticks(_places(len(layers)))
    axes.invert_yaxis()
    axes.set_title("possible ranks of each layer, 95\u00a0% confidence (blue: may be the best)")
    axes.grid(axis="y")


def _places(number: int) -> list[int]:
    """Return rounded ranks for axis ticks, including 1."""
    step = next(step for step in (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000) if number <= 8 * step)
    return [1, *range(step, number + 1, step)] if step > 1 else list(range(1, number + 1))


def _title(layers: pl.DataFrame) -> str:
    """Return the most accurate layer and the number of layers that may be the best as a sentence."""
    best = layers.row(0, named=True)
    can_be = int((layers["first"] == 1).sum())
    name = f"{layer_label(best['layer'])} ({percent(best['accuracy'] / 100)})"
    if len(layers) == 1:
        return f"{name} is the only layer, so there is no comparison"
    if can_be == 1:
        return f"Of {len(layers)} layers, {name} is significantly more accurate than all others"
    return f"{name} is the most accurate, but {can_be} of {len(layers)} layers may be the best"
