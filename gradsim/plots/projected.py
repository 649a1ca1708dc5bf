"""Select or project: comparison of selected layers with projections of the same size."""

from collections.abc import Callable

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from gradsim.analysis.arrays import Floats
from gradsim.analysis.selection import Criterion
from gradsim.analysis.statistics import SIGNIFICANT
from gradsim.plots.labels import count, listed, points, projection_label
from gradsim.plots.marks import draw_rows, refuse_empty, turned, zero_line
from gradsim.plots.style import BLUE, FAINT, GREEN, ORANGE, bare, new_figure, styled

LOOKS = {Criterion.ACCURACY: (BLUE, "o"), Criterion.SIMILARITY: (GREEN, "^")}
PROJECTED = (ORANGE, "s")

DIFFERENCE = ("difference", "low", "high")
SIMILARITY_DIFFERENCE = ("similarity_difference", "similarity_low", "similarity_high")

ROW = 0.19
"""Height of a row in inches."""


def told_apart(contests: pl.DataFrame) -> tuple[int, int]:
    """Return how many comparisons the selected layers win significantly, and how many the projections.

    Figures and sentences share this rule; the difference is not significant in the remaining rows.

    Args:
        contests: Rows of the table `select_or_project`.
    """
    apart = contests.filter(pl.col("p_holm") < SIGNIFICANT)["difference"]
    return int((apart > 0).sum()), int((apart < 0).sum())


def projections_lead(contests: pl.DataFrame) -> bool:
    """Return whether projections are more accurate in some comparison and less in none.

    Figures and sentences then show the differences of projections from selected layers, not the opposite.
    """
    selected, projected = told_apart(contests.filter(pl.col("criterion") == Criterion.ACCURACY))
    return projected > 0 and not selected


@styled
def selected_or_projected(select_or_project: pl.DataFrame) -> Figure:
    """Draw selected layers and projections of the same size, and their paired differences with 95 % intervals.

    Differences are those of the one that the title names first, so that to the right of zero it is the larger. The
    upper panels show accuracy, the lower panels similarity to the full gradient.

    Raises:
        TableError: The table has no rows.
    """
    reason = "nothing was projected, layer sizes are unknown or every layer is larger than the projections"
    refuse_empty(select_or_project, "select_or_project", reason)
    accuracy = ("selected_accuracy", "projected_accuracy", *DIFFERENCE)
    similarity = ("selected_similarity", "projected_similarity", *SIMILARITY_DIFFERENCE)
    contests = select_or_project.with_columns(pl.col(accuracy) * 100)
    order = "selected − projected"
    if projections_first := projections_lead(contests):
        order = "projected − selected"
        contests = turned(turned(contests, *DIFFERENCE), *SIMILARITY_DIFFERENCE)
    places, ticks, labels = _rows(contests)

    height = -float(places[-1]) + 1
    figure = new_figure(_title(contests, projections_first=projections_first), height=1.75 + 2 * ROW * height)
    panels = figure.subplots(2, 2, sharey=True, width_ratios=(1.15, 1), gridspec_kw={"wspace": 0.1})
    _draw(panels[0], contests, places, [*accuracy], points)
    _draw(panels[1], contests, places, [*similarity], lambda number: points(number, 3))
    panels[0, 0].set_title("accuracy (%)")
    panels[0, 1].set_title(f"{order} (points)")
    panels[1, 0].set_title("similarity to the full gradient")
    panels[1, 1].set_title(order)
    panels[0, 0].set_yticks(ticks, labels)
    panels[0, 0].set_ylim(-height + 0.3, 0.7)
    handles, names = panels[0, 0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower left", ncols=3, columnspacing=1.5, handletextpad=0.2)
    return figure


def _rows(contests: pl.DataFrame) -> tuple[Floats, list[float], list[str]]:
    """Return the height of each row, and ticks and labels of the projections; a gap separates projections."""
    new = contests.select(pl.struct("projection", "dimension").rle_id()).to_series().to_numpy()
    places = -(np.arange(len(contests)) + 0.7 * new.astype(np.float64))
    ticks, labels = [], []
    for position in np.unique(new):
        members = np.flatnonzero(new == position)
        name, dimension = contests.select("projection", "dimension").row(int(members[0]))
        ticks.append(float(places[members].mean()))
        labels.append(f"{projection_label(name)}\n{count(dimension)} dim.")
    return places, ticks, labels


def _draw(
    panels: NDArray[np.object_],
    contests: pl.DataFrame,
    places: Floats,
    columns: list[str],
    written: Callable[[float], str],
) -> None:
    """Draw the two values joined by a line in the left panel, and their difference in the right panel."""
    values, differences = panels
    selected, projected, *difference = columns
    values.hlines(places, contests[selected], contests[projected], color=FAINT, linewidth=3, zorder=1)
    colour, marker = PROJECTED
    values.plot(contests[projected], places, marker, color=colour, markersize=5, label="projected")
    zero_line(differences, vertical=True)
    for criterion, (colour, marker) in LOOKS.items():
        mine = (contests["criterion"] == criterion).to_numpy()
        rows = contests.filter(mine)
        if rows.is_empty():
            continue
        label = f"selected by {criterion}"
        values.plot(rows[selected], places[mine], marker, color=colour, markersize=5, label=label)
        draw_rows(differences, places[mine], rows, difference, color=colour, marker=marker)
    for place, value in zip(places, contests[difference[0]], strict=True):
        _write(differences, place, written(value))
    for panel in panels:
        panel.locator_params(axis="x", nbins=3)
        panel.margins(x=0.1)
        panel.grid(axis="x")
        bare(panel)


def _write(axes: Axes, place: float, text: str) -> None:
    axes.annotate(
        text, (1.03, place), xycoords=("axes fraction", "data"), va="center", fontsize=8, annotation_clip=False
    )


def _title(contests: pl.DataFrame, *, projections_first: bool) -> str:
    """Return the outcome for layers selected by accuracy, and the range of the differences, as a sentence.

    Args:
        contests: Rows of the table, with differences in percentage points.
        projections_first: Whether the differences are those of projections from selected layers.
    """
    answer, first, second = "Select", "selected layers", "projections"
    if projections_first:
        answer, first, second = "Project", second, first
    rows = contests.filter(pl.col("criterion") == Criterion.ACCURACY)
    wins, losses = told_apart(rows)
    intervals = "95\u00a0% interval" if len(rows) == 1 else "95\u00a0% intervals"
    low, high = float(rows["low"].to_numpy().min()), float(rows["high"].to_numpy().max())
    ends = f"{intervals} from {points(low)} to {points(high)}"
    sizes = sorted({f"{abs(difference):.1f}" for difference in rows["difference"]}, key=float)
    by = f"{sizes[0]} to {sizes[-1]}" if len(sizes) > 1 else sizes[0]
    if wins == len(rows):
        return f"{answer}: {first} are {by} points more accurate than {second} of the same size; {ends}"
    if not wins and not losses:
        return f"Selected layers and projections do not differ significantly in accuracy; {ends}"
    found = listed([f"{what} accurate in {times}" for what, times in (("more", wins), ("less", losses)) if times])
    open_ones = len(rows) - wins - losses
    rest = f"; not significant in {open_ones}" if open_ones else ""
    return f"{first.capitalize()} are {found} of {len(rows)} comparisons with {second} of the same size{rest}"
