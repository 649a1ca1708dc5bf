"""Shared plot elements: points with intervals, curves with bands, axes and ticks."""

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
"""Maximum number of points for a curve with a marker at each point."""

MARKED_STEPS = (1, 2, 5, 10, 20, 50, 100, 200, 500)
"""Selection steps with markers on curves that are too long for a marker at each step."""

TICKS_WITHIN_A_DECADE = (
    np.arange(100, 1000) / 100,
    np.arange(10, 100) / 10,
    np.array([1, 1.5, 2, 3, 5, 7]),
    np.array([1, 2, 5]),
    np.ones(1),
)
"""Candidate ticks of logarithmic axes within a decade, from finest to coarsest."""


def draw_rows(axes: Axes, places: ArrayLike, rows: pl.DataFrame, columns: Sequence[str], **looks: Any) -> None:
    """Draw points with horizontal intervals.

    Args:
        axes: Axes to draw on.
        places: Positions on the y axis, (n_rows,).
        rows: Values in the unit of the x axis.
        columns: Names of the columns with value, lower and upper end.
        looks: `color`, `marker` and other keyword arguments of `Axes.plot` for the points.
    """
    values, lows, highs = (rows[column] for column in columns)
    axes.hlines(places, lows, highs, color=looks["color"], linewidth=1.8)
    axes.plot(values, places, **{"linestyle": "none", "markersize": 5, "zorder": 3, **looks})


def draw_columns(axes: Axes, places: ArrayLike, rows: pl.DataFrame, columns: Sequence[str], **looks: Any) -> None:
    """Draw points with vertical intervals; arguments as in `draw_rows`, with the axes exchanged."""
    values, lows, highs = (rows[column] for column in columns)
    axes.vlines(places, lows, highs, color=looks["color"], linewidth=1.4, alpha=looks.get("alpha", 1))
    axes.plot(places, values, **{"linestyle": "none", "markersize": 4.5, "zorder": 3, **looks})


def draw_curve(axes: Axes, places: ArrayLike, rows: pl.DataFrame, columns: Sequence[str], **looks: Any) -> None:
    """Draw a line with an interval band, and markers if there are at most `MOST_MARKED` points.

    Args:
        axes: Axes to draw on.
        places: Positions on the x axis, (n_rows,), ascending.
        rows: Values in the unit of the y axis.
        columns: Names of the columns with value, lower and upper end; the value alone draws no band.
        looks: `color`, `marker` and other keyword arguments of `Axes.plot`.
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
    """Draw the curve of a selection, one row per step, with markers at `MARKED_STEPS` if it is long."""
    if len(steps) > MOST_MARKED:
        looks["markevery"] = [step - 1 for step in MARKED_STEPS if step <= len(steps)]
    draw_curve(axes, places, steps, columns, **looks)


def marked_steps(number: int) -> str:
    """Return a description of the markers on the curve of a selection with the given number of steps."""
    if number <= MOST_MARKED:
        return "markers: every added layer"
    return f"markers: {listed([str(step) for step in MARKED_STEPS if step <= number])} layers"


def turned(table: pl.DataFrame, difference: str, low: str, high: str) -> pl.DataFrame:
    """Return a table with the opposite difference, first minus second as second minus first, and its interval."""
    return table.with_columns(-pl.col(difference), (-pl.col(high)).alias(low), (-pl.col(low)).alias(high))


def zero_line(axes: Axes, *, vertical: bool = False) -> None:
    """Draw a line at zero."""
    (axes.axvline if vertical else axes.axhline)(0, color=MUTED, linewidth=1, zorder=1)


def whole_numbers(axes: Axes, most: int = 12) -> None:
    """Restrict ticks of the x axis to whole numbers."""
    axes.xaxis.set_major_locator(MaxNLocator(most, integer=True, min_n_ticks=1))


def within_hundred(axes: Axes, *, horizontal: bool = False) -> None:
    """Limit a percentage axis to 0 and 100 without clipping markers there; call it after drawing."""
    first, last = axes.get_xlim() if horizontal else axes.get_ylim()
    (axes.set_xlim if horizontal else axes.set_ylim)(max(first, 0), min(last, 100))
    for line in axes.lines:
        line.set_clip_on(False)


def logarithmic(axes: Axes, most: int = 10, *, whole: bool = False) -> None:
    """Make the x axis logarithmic, with the finest ticks that do not exceed `most`.

    Args:
        axes: Axes with everything already drawn.
        most: Maximum number of ticks.
        whole: Whether to restrict ticks to whole numbers.
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
    """Raise a TableError that states the likely reason if a table has no rows."""
    if table.is_empty():
        raise TableError(f"{name} has no rows: {reason}; omit its figure")
