"""Accuracy of the methods compared with the null controls."""

from collections.abc import Mapping

import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gradsim.analysis.controls import CHANCE
from gradsim.analysis.methods import BM25
from gradsim.analysis.similarity import FULL_GRADIENT
from gradsim.plots.labels import control_label, listed, method_label, percent, setting_label
from gradsim.plots.style import BLUE, INK, MUTED, PAPER, VERMILION, bare, new_figure, styled

LONGEST_LINE = 28
"""Maximum characters of a method's name on one line."""

LINE = 0.45
"""Extra height of a row with a two-line label, in rows."""


@styled
def accuracy_of_methods(accuracy: Mapping[str, pl.DataFrame], controls: Mapping[str, pl.DataFrame]) -> Figure:
    """Draw the accuracy of each method and null control with 95 % intervals, one panel per setting.

    Args:
        accuracy: Table `accuracy` of each setting; only the group `all` is drawn.
        controls: Table `controls` of the same settings.
    """
    rows = {setting: (table.filter(pl.col("group") == "all"), controls[setting]) for setting, table in accuracy.items()}
    # Chance is a vertical line, not a row.
    heights = [
        len(methods) + len(nulls) - 1 + LINE * sum("\n" in _name(method) for method in methods["method"])
        for methods, nulls in rows.values()
    ]
    figure = new_figure(_title(accuracy), height=0.9 + sum(0.22 * height + 0.4 for height in heights))
    shares = [height + 0.8 for height in heights]
    panels = figure.subplots(len(rows), sharex=True, squeeze=False, height_ratios=shares)[:, 0]
    for panel, (setting, (methods, nulls)) in zip(panels, rows.items(), strict=True):
        _draw_setting(panel, methods, nulls)
        panel.set_title(_panel_title(setting, methods, nulls))
    panels[-1].set_xlabel("accuracy: source is the most similar candidate (%)")
    return figure


def _name(method: str) -> str:
    """Return the label of a method, with a line break before the dimension if it is long."""
    label = method_label(method)
    return label if len(label) <= LONGEST_LINE else label.replace(", ", ",\n")


def _draw_setting(panel: Axes, methods: pl.DataFrame, nulls: pl.DataFrame) -> None:
    colours = {FULL_GRADIENT: BLUE, BM25: VERMILION}
    markers = {FULL_GRADIENT: "o", BM25: "D"}
    labels: list[str] = []
    for row in methods.iter_rows(named=True):
        colour, marker = colours.get(row["method"], BLUE), markers.get(row["method"], "s")
        _draw_interval(panel, -len(labels), row, colour=colour, marker=marker, face=colour)
        labels.append(_name(row["method"]))
    for row in nulls.filter(pl.col("control") != CHANCE).iter_rows(named=True):
        _draw_interval(panel, -len(labels), row, colour=MUTED, marker="o", face=PAPER)
        labels.append(control_label(row["control"]))
    for share in nulls.filter(pl.col("control") == CHANCE)["accuracy"]:
        panel.axvline(100 * share, color=MUTED, linestyle=(0, (4, 3)), linewidth=1)
    panel.set_yticks([-position for position in range(len(labels))], labels)
    panel.set_ylim(-len(labels) + 0.4, 0.6)
    panel.set_xlim(0, 100)
    panel.grid(axis="x")
    bare(panel)


def _draw_interval(panel: Axes, position: int, row: dict[str, float], *, colour: str, marker: str, face: str) -> None:
    panel.plot([100 * row["low"], 100 * row["high"]], [position] * 2, color=colour, linewidth=2.2)
    panel.plot(
        100 * row["accuracy"],
        position,
        marker,
        color=colour,
        markerfacecolor=face,
        markersize=6,
        clip_on=False,
        zorder=3,
    )
    panel.annotate(
        f"{percent(row['accuracy'])}  [{100 * row['low']:.1f}, {100 * row['high']:.1f}]",
        (1.03, position),
        xycoords=("axes fraction", "data"),
        va="center",
        color=INK,
        fontsize=8,
        annotation_clip=False,
    )


def _panel_title(setting: str, methods: pl.DataFrame, nulls: pl.DataFrame) -> str:
    queries = f"{setting_label(setting)}, {methods['queries'][0]} queries"
    chance = nulls.filter(pl.col("control") == CHANCE)["accuracy"]
    return f"{queries}, chance {percent(chance[0])} (dashed)" if len(chance) else queries


def _title(accuracy: Mapping[str, pl.DataFrame]) -> str:
    """Return the accuracy of the full gradient and BM25 in every setting as a sentence."""
    found, found_by_bm25 = [], []
    for setting, table in accuracy.items():
        every = table.filter(pl.col("group") == "all")
        share = dict(every.select("method", "accuracy").iter_rows())
        found.append(f"{percent(share[FULL_GRADIENT])} of {setting_label(setting)}")
        found_by_bm25.append(percent(share[BM25]))
    if len(set(found_by_bm25)) == 1:
        found_by_bm25 = found_by_bm25[:1]
    return f"The full gradient finds the source of {listed(found)} queries; BM25 finds {listed(found_by_bm25)}"
