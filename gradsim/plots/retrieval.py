"""Retrieval: the rank of the source among the candidates of each method, and the distributions of similarities."""

import numpy as np
import polars as pl
import seaborn
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from gradsim.analysis.arrays import Floats
from gradsim.analysis.methods import BM25
from gradsim.analysis.metrics import RECALL, RECIPROCAL_RANK
from gradsim.analysis.similarity import FULL_GRADIENT
from gradsim.plots.labels import listed, method_label, percent
from gradsim.plots.marks import DASHED, DOTTED, draw_columns, refuse_empty, within_hundred
from gradsim.plots.style import BLUE, INK, PROJECTION_LOOKS, VERMILION, new_figure, styled

BINS = 40

SPREAD = 0.09
"""Horizontal offset between methods at the same k, so that their intervals do not overlap."""

LABEL = 0.36
"""Height of a method's label, in inches."""

A_FEW = 10
"""Maximum k of the recall in the title."""


@styled
def recall_at_k(retrieval: pl.DataFrame) -> Figure:
    """Draw recall at k of each method, with 95 % intervals.

    Raises:
        TableError: The table has no rows.
    """
    refuse_empty(retrieval, "retrieval", "no query was compared")
    every = retrieval.filter(pl.col("group") == "all")
    recall = every.filter(pl.col("metric") == RECALL).with_columns(pl.col("value", "low", "high") * 100)
    means = dict(every.filter(pl.col("metric") == RECIPROCAL_RANK).select("method", "value").iter_rows())
    depths = recall["k"].unique().sort().to_list()

    methods = recall["method"].unique(maintain_order=True).to_list()
    height = max(3.4, 1.2 + LABEL * len(methods))
    figure = new_figure(_title(recall, depths), height=height)
    axes = figure.subplots()
    ends = []
    for position, method in enumerate(methods):
        rows = recall.filter(pl.col("method") == method).sort("k")
        marker, colour, line = _looks(method, methods)
        places = [depths.index(k) + SPREAD * (position - (len(methods) - 1) / 2) for k in rows["k"]]
        axes.plot(places, rows["value"], color=colour, linestyle=line, linewidth=1.3)
        draw_columns(axes, places, rows, ("value", "low", "high"), color=colour, marker=marker)
        ends.append(((places[-1], rows["value"][-1]), _label(method, means.get(method)), colour))
    axes.set_xticks(range(len(depths)), [str(k) for k in depths])
    axes.set_xlim(-0.35, len(depths) - 0.65)
    axes.set_xlabel("number of candidates k")
    axes.set_ylabel("recall at k (%)")
    axes.grid(axis="y")
    within_hundred(axes)
    _label_ends(axes, ends, gap=LABEL / (height - 1.2))
    return figure


def _label_ends(axes: Axes, ends: list[tuple[tuple[float, float], str, str]], gap: float) -> None:
    """Label the ends of curves to the right of the axes, moving overlapping labels apart.

    Leader lines end at the left edges of the labels, so that they never cross a label.

    Args:
        axes: Axes with final limits.
        ends: Data point, text and colour of each label.
        gap: Minimum distance between two labels, as a fraction of the axes' height.
    """
    bottom, top = axes.get_ylim()
    shares = [(height - bottom) / (top - bottom) for (_, height), _, _ in ends]
    for share, (point, text, colour) in zip(_spread(shares, gap), ends, strict=True):
        axes.annotate(
            text,
            point,
            (1.04, share),
            textcoords="axes fraction",
            va="center",
            color=INK,
            fontsize=8,
            annotation_clip=False,
            arrowprops={
                "arrowstyle": "-",
                "color": colour,
                "linewidth": 0.8,
                "shrinkA": 1,
                "shrinkB": 3,
                "relpos": (0, 0.5),
            },
        )


def _spread(places: ArrayLike, gap: float) -> Floats:
    """Return places in [0, 1] moved at least `gap` apart and `gap / 2` from both ends, in the same order."""
    given = np.asarray(places, dtype=np.float64)
    order = np.argsort(given, kind="stable")
    steps = gap * np.arange(len(given))
    wanted = given[order] - steps
    # The mean of pushing only upwards and only downwards also keeps the gap.
    upwards, downwards = np.maximum.accumulate(wanted), np.minimum.accumulate(wanted[::-1])[::-1]
    moved = np.empty_like(given)
    moved[order] = np.clip((upwards + downwards) / 2, gap / 2, 1 - gap / 2 - steps[-1]) + steps
    return moved


def _looks(method: str, methods: list[str]) -> tuple[str, str, object]:
    if method == FULL_GRADIENT:
        return "o", BLUE, "solid"
    if method == BM25:
        return "s", VERMILION, DASHED
    projections = [name for name in methods if name not in (FULL_GRADIENT, BM25)]
    marker, colour = PROJECTION_LOOKS[projections.index(method) % len(PROJECTION_LOOKS)]
    return marker, colour, DOTTED


def _label(method: str, mean: float | None) -> str:
    label = method_label(method).removesuffix(" dimensions")
    return label if mean is None else f"{label}\nMRR {mean:.3f}"


def _title(recall: pl.DataFrame, depths: list[int]) -> str:
    """Return the recall of the full gradient and BM25 at a small k as a sentence."""
    k = max(depth for depth in depths if depth <= A_FEW)
    shares = dict(recall.filter(pl.col("k") == k).select("method", "value").iter_rows())
    found = [
        f"{percent(shares[method] / 100)} for {name}"
        for method, name in ((FULL_GRADIENT, "the full gradient"), (BM25, "BM25"))
        if method in shares
    ]
    return f"Recall at {k} is {listed(found)}"


@styled
def source_against_others(decisions: pl.DataFrame) -> Figure:
    """Draw histograms of the similarities of true sources and of the best other candidates."""
    source = decisions["source_similarity"].to_numpy()
    other = decisions["best_other_similarity"].drop_nulls().to_numpy()
    figure = new_figure(_decisions_title(decisions), height=3.0)
    axes = figure.subplots()
    bins = np.histogram_bin_edges(np.concatenate([source, other]), BINS)
    for values, label, colour, line in (
        (other, "best other candidate", VERMILION, (0, (3, 2))),
        (source, "true source", BLUE, "solid"),
    ):
        if len(values) == 0:
            continue
        seaborn.histplot(
            x=values,
            bins=bins,
            ax=axes,
            element="step",
            color=colour,
            alpha=0.18,
            linewidth=1.6,
            linestyle=line,
            label=f"{label}, median {np.median(values):.3f}",
        )
    axes.set_xlabel("similarity to the query (cosine of the full gradients)")
    axes.set_ylabel("number of queries")
    axes.grid(axis="y")
    axes.set_ylim(top=1.3 * axes.get_ylim()[1])  # room for the legend
    handles, labels = axes.get_legend_handles_labels()
    axes.legend(handles[::-1], labels[::-1])
    return figure


def _decisions_title(decisions: pl.DataFrame) -> str:
    found = int((decisions["credit"] == 1).sum())
    tied = int(decisions["credit"].is_between(0, 1, closed="none").sum())
    wins = f"The true source is the most similar candidate for {found} of {len(decisions)}"
    return f"{wins} queries" + (f" and ties with others for {tied}" if tied else "")
