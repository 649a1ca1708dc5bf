"""Means over groups of layers: by component, by depth, and attention versus MLP."""

from collections.abc import Callable

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gradsim.errors import TableError
from gradsim.plots.labels import percent, points
from gradsim.plots.marks import (
    draw_columns,
    draw_curve,
    draw_rows,
    refuse_empty,
    turned,
    whole_numbers,
    within_hundred,
    zero_line,
)
from gradsim.plots.style import BLUE, INK, MUTED, VERMILION, bare, new_figure, styled

ACCURACY = ("accuracy", "accuracy_low", "accuracy_high")
SIMILARITY = ("similarity", "similarity_low", "similarity_high")

FOUND = "single-layer accuracy (%)"
LIKE_FULL = "similarity to the full gradient"


@styled
def means_of_groups(layer_means: pl.DataFrame) -> Figure:
    """Draw mean accuracy and mean similarity to the full gradient by component, with 95 % intervals.

    Raises:
        TableError: The table has no components.
    """
    means = _means(layer_means, "component")
    figure = new_figure(_extremes(means, lambda group: group), height=1.1 + 0.21 * len(means))
    panels = figure.subplots(1, 2, sharey=True)
    places = -np.arange(len(means))
    for panel, columns, label in zip(panels, (ACCURACY, SIMILARITY), (FOUND, LIKE_FULL), strict=True):
        draw_rows(panel, places, means, columns, color=BLUE, marker="o")
        panel.set_xlabel(label)
        panel.margins(x=0.08)
        panel.locator_params(axis="x", nbins=5)
        panel.grid(axis="x")
        bare(panel)
    within_hundred(panels[0], horizontal=True)
    panels[0].set_yticks(places, [f"{group} ×{layers}" for group, layers in means["group", "layers"].iter_rows()])
    panels[0].set_ylim(places[-1] - 0.6, 0.6)
    return figure


@styled
def means_by_depth(layer_means: pl.DataFrame) -> Figure:
    """Draw mean accuracy and mean similarity to the full gradient by transformer block, with 95 % bands.

    Raises:
        TableError: The table has no blocks.
    """
    means = _means(layer_means, "block").with_columns(block=pl.col("group").cast(pl.Int32)).sort("block")
    title = _extremes(means, lambda group: f"block {group}")
    figure = new_figure(title, height=3.7)
    panels = figure.subplots(2, 1, sharex=True)
    draw_curve(panels[0], means["block"], means, ACCURACY, color=BLUE, marker="o")
    draw_curve(panels[1], means["block"], means, SIMILARITY, color=VERMILION, marker="s")
    for panel, label in zip(panels, (FOUND, LIKE_FULL), strict=True):
        panel.set_title(label)
        panel.grid()
    within_hundred(panels[0])
    panels[1].set_xlabel("transformer block (mean over its layers)")
    whole_numbers(panels[1])
    figure.align_ylabels()
    return figure


@styled
def attention_and_mlp(layer_means: pl.DataFrame, attention_against_mlp: pl.DataFrame) -> Figure:
    """Draw the differences between the means of attention and MLP layers, by block and over all blocks.

    Differences are those of the part that the title names first, so that above zero it has the larger mean.

    Raises:
        TableError: The model lacks attention or MLP layers.
    """
    refuse_empty(attention_against_mlp, "attention_against_mlp", "the model lacks attention or MLP layers")
    accuracy = [f"accuracy_{end}" for end in ("difference", "low", "high")]
    similarity = [f"similarity_{end}" for end in ("difference", "low", "high")]
    differences = attention_against_mlp.with_columns(pl.col(accuracy) * 100)
    first, second = "attention", "MLP"
    if differences.filter(pl.col("block").is_null())["accuracy_high"].item() < 0:
        first, second = second, first
        differences = turned(turned(differences, *accuracy), *similarity)
    means = {row["group"]: row for row in _means(layer_means, "part").iter_rows(named=True)}

    figure = new_figure(_parts_title(differences, first, second), height=4.0)
    panels = figure.subplots(2, 1, sharex=True)
    _draw_differences(panels[0], differences, accuracy, BLUE, "o", points)
    found = ", ".join(f"{part} {percent(means[part]['accuracy'] / 100)}" for part in (first, second))
    panels[0].set_title(f"accuracy: {found}; difference (points)")
    _draw_differences(panels[1], differences, similarity, VERMILION, "s", lambda number: points(number, 3))
    like_full = ", ".join(f"{part} {means[part]['similarity']:.3f}" for part in (first, second))
    panels[1].set_title(f"{LIKE_FULL}: {like_full}; difference")
    panels[1].set_xlabel(f"transformer block (mean of {first} layers minus mean of {second} layers)")
    whole_numbers(panels[1])
    return figure


def _draw_differences(
    axes: Axes, differences: pl.DataFrame, columns: list[str], colour: str, marker: str, written: Callable[[float], str]
) -> None:
    inside = differences.filter(pl.col("block").is_not_null())
    zero_line(axes)
    draw_columns(axes, inside["block"], inside, columns, color=colour, marker=marker)
    for difference, low, high in differences.filter(pl.col("block").is_null()).select(columns).iter_rows():
        axes.axhspan(low, high, color=MUTED, alpha=0.3, linewidth=0, zorder=0)
        axes.axhline(difference, color=INK, linewidth=1, linestyle=(0, (4, 2)), zorder=1)
        axes.annotate(
            f"all blocks\n{written(difference)}",
            (1.02, difference),
            xycoords=("axes fraction", "data"),
            va="center",
            fontsize=8,
            annotation_clip=False,
        )
    axes.margins(x=0.04)
    axes.grid(axis="y")


def _parts_title(differences: pl.DataFrame, first: str, second: str) -> str:
    """Return whether the first part is more accurate, and in how many blocks the interval excludes zero."""
    overall = differences.filter(pl.col("block").is_null()).row(0, named=True)
    if overall["accuracy_low"] <= 0:
        return f"The mean accuracies of {first} and {second} layers do not differ significantly"
    blocks = differences.filter(pl.col("block").is_not_null())
    finding = (
        f"{first[0].upper()}{first[1:]} layers are on average {overall['accuracy_difference']:.1f} points more "
        f"accurate than {second} layers"
    )
    told = int((blocks["accuracy_low"] > 0).sum())
    return f"{finding}; the difference is significant in {told} of {len(blocks)} blocks" if len(blocks) else finding


def _means(layer_means: pl.DataFrame, grouping: str) -> pl.DataFrame:
    """Return the rows of a grouping, with accuracy in percent."""
    means = layer_means.filter(pl.col("grouping") == grouping)
    if means.is_empty():
        raise TableError(f"layer_means has no rows of grouping {grouping!r}; omit its figure")
    return means.with_columns(pl.col(ACCURACY) * 100)


def _extremes(means: pl.DataFrame, named: Callable[[str], str]) -> str:
    """Return the groups with the highest and lowest mean accuracy as a sentence; ties go to the first group."""
    most = means.sort("accuracy", descending=True, maintain_order=True).row(0, named=True)
    fewest = means.sort("accuracy", maintain_order=True).row(0, named=True)
    found = percent(most["accuracy"] / 100)
    if most["accuracy"] == fewest["accuracy"]:
        return f"Mean single-layer accuracy is {found} for every {most['grouping']}"
    return (
        f"Mean single-layer accuracy is highest for {named(most['group'])} ({found}) "
        f"and lowest for {named(fewest['group'])} ({percent(fewest['accuracy'] / 100)})"
    )
