"""Marks that several figures share: points with intervals, curves with bands, axes and their ticks."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, MaxNLocator, NullLocator
from numpy.typing import ArrayLike

from gradsim.errors import TableError
from gradsim.plots.labels import SMALLEST_IN_FULL, listed, power_of_ten
from gradsim.plots.style import MUTED

DASHED = (0, (4, 2))
DOTTED = (0, (1, 1.6))

MOST_MARKED = 40
"""A curve of more points than that has no marker at each."""

MARKED_STEPS = (1, 2, 5, 10, 20, 50, 100, 200, 500)
"""Where a curve over the steps of a selection has markers, if there are too many for one at each."""

TICKS_WITHIN_A_DECADE = (
    np.arange(100, 1000) / 100,
    np.arange(10, 100) / 10,
    np.array([1, 1.5, 2, 3, 5, 7]),
    np.array([1, 2, 5]),
    np.ones(1),
)
"""Of logarithmic axes, from the finest to the coarsest."""


def draw_rows(axes: Axes, places: ArrayLike, rows: pl.DataFrame, columns: Sequence[str], **looks: Any) -> None:
    """Points with horizontal intervals, one at each place of the y axis.

    Args:
        axes: where to draw.
        places: (n_rows,).
        rows: the values, in the unit of the x axis.
        columns: names of value, lower and upper end.
        looks: `color`, `marker` and what else `Axes.plot` takes for the points.
    """
    values, lows, highs = (rows[column] for column in columns)
    axes.hlines(places, lows, highs, color=looks["color"], linewidth=1.8)
    axes.plot(values, places, **{"linestyle": "none", "markersize": 5, "zorder": 3, **looks})


def draw_columns(axes: Axes, places: ArrayLike, rows: pl.DataFrame, columns: Sequence[str], **looks: Any) -> None:
    """The same with vertical intervals, one at each place of the x axis."""
    values, lows, highs = (rows[column] for column in columns)
    axes.vlines(places, lows, highs, color=looks["color"], linewidth=1.4, alpha=looks.get("alpha", 1))
    axes.plot(places, values, **{"linestyle": "none", "markersize": 4.5, "zorder": 3, **looks})


def draw_curve(axes: Axes, places: ArrayLike, rows: pl.DataFrame, columns: Sequence[str], **looks: Any) -> None:
    """A line over the x axis with its band of intervals; with a marker at each point where they are few.

    Args:
        axes: where to draw.
        places: (n_rows,), ascending.
        rows: the values, in the unit of the y axis.
        columns: names of value, lower and upper end; of the value alone: no band.
        looks: `color`, `marker` and what else `Axes.plot` takes.
    """
    value, *ends = columns
    if ends:
        low, high = (rows[end].to_numpy() for end in ends)
        axes.fill_between(places, low, high, color=looks["color"], alpha=0.16, linewidth=0)
    if len(rows) > MOST_MARKED:
        looks = {"markevery": [], **looks}
    axes.plot(places, rows[value], **{"linewidth": 1.6, "markersize": 4, **looks})
    if ends and len(rows) == 1:
        axes.vlines(places, low, high, color=looks["color"], linewidth=1.4)


def draw_steps(axes: Axes, places: ArrayLike, steps: pl.DataFrame, columns: Sequence[str], **looks: Any) -> None:
    """The same of a selection, one row a step."""
    if len(steps) > MOST_MARKED:
        looks["markevery"] = [step - 1 for step in MARKED_STEPS if step <= len(steps)]
    draw_curve(axes, places, steps, columns, **looks)


def marked_steps(number: int) -> str:
    """What the markers of a selection of so many steps stand for."""
    if number <= MOST_MARKED:
        return "marks: every layer more"
    return f"marks: {listed([str(step) for step in MARKED_STEPS if step <= number])} layers"


def zero_line(axes: Axes, *, vertical: bool = False) -> None:
    """Where there is no difference."""
    (axes.axvline if vertical else axes.axhline)(0, color=MUTED, linewidth=1, zorder=1)


def whole_numbers(axes: Axes, most: int = 12) -> None:
    """Ticks of the x axis at whole numbers only."""
    axes.xaxis.set_major_locator(MaxNLocator(most, integer=True, min_n_ticks=1))


def within_hundred(axes: Axes, *, horizontal: bool = False) -> None:
    """Ends an axis of shares (%) at 0 and 100, with whole marks there; nothing may be drawn later."""
    first, last = axes.get_xlim() if horizontal else axes.get_ylim()
    (axes.set_xlim if horizontal else axes.set_ylim)(max(first, 0), min(last, 100))
    for line in axes.lines:
        line.set_clip_on(False)


def logarithmic(axes: Axes, most: int = 10, *, whole: bool = False) -> None:
    """A logarithmic x axis with the finest ticks of which there are no more than `most`.

    Args:
        axes: what is drawn must be.
        most: number of ticks.
        whole: ticks at whole numbers only.
    """
    axes.set_xscale("log")
    first, last = axes.get_xlim()
    decades = 10.0 ** np.arange(np.floor(np.log10(first)), np.ceil(np.log10(last)) + 1)
    for within in TICKS_WITHIN_A_DECADE:
        ticks = np.outer(decades, within).ravel()
        ticks = ticks[(ticks >= first) & (ticks <= last) & (np.isclose(ticks, np.rint(ticks)) | (not whole))]
        if len(ticks) <= most:
            break
    axes.xaxis.set_major_locator(FixedLocator(ticks[:: max(1, -(-len(ticks) // most))].tolist()))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}" if value >= SMALLEST_IN_FULL else power_of_ten(value))


def refuse_empty(table: pl.DataFrame, name: str, reason: str) -> None:
    """Raises a TableError of a table without rows, which says why there may be none."""
    if table.is_empty():
        raise TableError(f"{name} has no rows: {reason}; leave its figure out")
