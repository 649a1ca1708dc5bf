"""How high in the lists of candidates the methods have the source."""

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

from gradsim.analysis.methods import BM25
from gradsim.analysis.metrics import RECALL, RECIPROCAL_RANK
from gradsim.analysis.similarity import FULL_GRADIENT
from gradsim.plots.labels import listed, method_label, percent
from gradsim.plots.marks import DASHED, DOTTED, draw_columns, refuse_empty, within_hundred
from gradsim.plots.style import BLUE, INK, PROJECTION_LOOKS, VERMILION, new_figure, styled

Floats = NDArray[np.float64]

SPREAD = 0.09
"""How far methods stand apart at one k, so that their intervals do not hide each other."""

LABEL = 0.36
"""Height of a method's label in inches."""

A_FEW = 10
"""The title says what is found among so many candidates, or as many as lists have."""


@styled
def recall_at_k(retrieval: pl.DataFrame) -> Figure:
    """For what share of the queries each method has the source among its first k candidates, with 95 % intervals.

    Args:
        retrieval: the table of that name; its group `all` is drawn.

    Raises:
        TableError: it has no rows.
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
    axes.set_xlabel("k")
    axes.set_ylabel("source among the first k candidates\n(% of queries)")
    axes.grid(axis="y")
    within_hundred(axes)
    _label_ends(axes, ends, gap=LABEL / (height - 1.2))
    return figure


def _label_ends(axes: Axes, ends: list[tuple[tuple[float, float], str, str]], gap: float) -> None:
    """Texts beside the axes at the height of what they name, moved apart where they would overlap.

    Lines lead to the texts' left ends, so that none runs through another's text.

    Args:
        axes: its limits must be final.
        ends: point in data, text and colour of each.
        gap: least distance between two texts, as a share of the axes' height.
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
    """Places between 0 and 1, in the same order, moved until they are a gap apart and half a gap from either end."""
    given = np.asarray(places, dtype=np.float64)
    order = np.argsort(given, kind="stable")
    steps = gap * np.arange(len(given))
    wanted = given[order] - steps
    # Half way between pushing only upwards and only downwards; either keeps the gap.
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
    return label if mean is None else f"{label}\nmean of 1/place {mean:.3f}"


def _title(recall: pl.DataFrame, depths: list[int]) -> str:
    """What the full gradient and BM25 have among the first few."""
    k = max(depth for depth in depths if depth <= A_FEW)
    shares = dict(recall.filter(pl.col("k") == k).select("method", "value").iter_rows())
    found = [
        f"{name} for {percent(shares[method] / 100)}"
        for method, name in ((FULL_GRADIENT, "the full gradient"), (BM25, "BM25"))
        if method in shares
    ]
    place = "the first candidate" if k == 1 else f"among the first {k} candidates"
    return f"The source is {place} by {listed(found)} of the queries"
