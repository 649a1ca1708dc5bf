"""Figures with one marker or cell per layer."""

from typing import Any

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gradsim.analysis.arrays import Floats
from gradsim.analysis.layers import COMPONENTS
from gradsim.errors import TableError
from gradsim.plots.grid import OUTSIDE, LayerGrid
from gradsim.plots.labels import count, layer_label, percent, size_of
from gradsim.plots.marks import draw_columns, draw_rows, logarithmic, within_hundred
from gradsim.plots.style import BLUE, COMPONENT_COLOURS, COMPONENT_MARKERS, FAINT, MUTED, bare, new_figure, styled

MOST_DOTS = 40
"""Maximum number of layers drawn as rows with intervals; more become a heat map."""

MOST_MARKERS = 150
"""Maximum number of layers drawn as markers whose intervals are apart; more become a heat map."""

MOST_SIZES = 8
"""Maximum number of distinct layer sizes with their own section of the axis."""

AXES_WIDTH = 350
"""Width of full-width axes, in points."""

LIKE_FULL = "similarity to the full gradient (cosine)"

SMALLEST_MARKER, MARKER = 2.0, 5.0
"""Smallest and default marker size, in points."""


@styled
def accuracy_of_layers(accuracy_per_layer: pl.DataFrame, parameters_per_layer: pl.DataFrame) -> Figure:
    """Draw the accuracy of each single layer, by block and component.

    Raises:
        TableError: A layer is not in `parameters_per_layer`.
    """
    layers = described(accuracy_per_layer, parameters_per_layer)
    title = _accuracy_title(layers)
    if len(layers) <= MOST_DOTS or layers["block"].null_count() == len(layers):
        return _layer_intervals(layers, title)
    figure = _heat_map(layers, 100 * layers["accuracy"].to_numpy(), title, "accuracy (%)", ".1f")
    for text in figure.axes[0].texts:
        text.set_text(text.get_text().replace("100.0", "100"))  # a cell fits four characters
    return figure


def _heat_map(layers: pl.DataFrame, values: Floats, title: str, label: str, number_format: str) -> Figure:
    """Return a figure with a cell for each layer, by block and component, and numbers where they fit."""
    grid = LayerGrid.of(layers)
    figure = new_figure(title, height=grid.height)
    grid.draw(
        figure.subplots(),
        values,
        cmap="cividis",
        annot=grid.numbered,
        fmt=number_format,
        annot_kws={"fontsize": 6.2},
        cbar_kws={"label": label, "aspect": 15, "pad": 0.02},
    )
    return figure


def _accuracy_title(layers: pl.DataFrame) -> str:
    best, worst = _highest(layers, "accuracy"), _highest(layers, "accuracy", lowest=True)
    if best["accuracy"] == worst["accuracy"]:
        return f"Single-layer accuracy is {percent(best['accuracy'])} for every layer"
    return (
        f"Single-layer accuracy is highest for {layer_label(best['layer'])} ({percent(best['accuracy'])}) "
        f"and lowest for {layer_label(worst['layer'])} ({percent(worst['accuracy'])})"
    )


def _layer_intervals(layers: pl.DataFrame, title: str) -> Figure:
    figure = new_figure(title, height=1.1 + 0.19 * len(layers))
    axes = figure.subplots()
    positions = -np.arange(len(layers))
    shares = ("accuracy", "low", "high")
    draw_rows(axes, positions, layers.with_columns(pl.col(shares) * 100), shares, color=BLUE, marker="o")
    axes.set_yticks(positions, [layer_label(layer) for layer in layers["layer"]], fontsize=8)
    axes.set_ylim(positions[-1] - 0.6, 0.6)
    within_hundred(axes, horizontal=True)
    axes.set_xlabel("single-layer accuracy (%), with 95\u00a0% intervals")
    axes.grid(axis="x")
    bare(axes)
    return figure


@styled
def layers_against_full_gradient(
    similarity_to_full_gradient: pl.DataFrame, parameters_per_layer: pl.DataFrame
) -> Figure:
    """Draw the similarity of each layer to the full gradient, with 95 % intervals, by layer size.

    Layers of equal size are side by side, ordered by component and depth. With more than `MOST_SIZES` sizes, the x axis
    is the size itself; if sizes are unknown, it is the transformer block. More than `MOST_MARKERS` layers are drawn by
    block and component, without intervals.

    Raises:
        TableError: A layer is not in `parameters_per_layer`.
    """
    layers = described(similarity_to_full_gradient, parameters_per_layer)
    sized = layers["share"].null_count() == 0
    best = _highest(layers, "similarity")
    size = f", {percent(best['share'])} of the parameters," if sized else ""
    title = (
        f"{layer_label(best['layer'])}{size} agrees most closely with the full gradient "
        f"(cosine {best['similarity']:.3f})"
    )
    if len(layers) > MOST_MARKERS and layers["block"].null_count() < len(layers):
        return _heat_map(layers, layers["similarity"].to_numpy(), title, LIKE_FULL, ".2f")
    figure = new_figure(title, height=4.0)
    axes = figure.subplots()
    axes.grid(axis="y")
    marker_size = MARKER
    if not sized:
        layers = _at_their_block(layers)
        _number_blocks(axes, layers)
    elif layers["share"].n_unique() > MOST_SIZES:
        layers = layers.with_columns(place=100 * pl.col("share"))
        axes.set_xlabel("share of the model's parameters (%, log scale)")
    else:
        sizes = _sizes(layers)
        layers = _beside_each_other(layers, sizes)
        _name_sizes(axes, sizes)
        marker_size = float(
            np.clip(AXES_WIDTH * sizes["apart"].to_numpy().min() / sizes["end"][-1], SMALLEST_MARKER, MARKER)
        )
    for component in COMPONENTS:
        rows = layers.filter(pl.col("component") == component)
        if rows.is_empty():
            continue
        draw_columns(
            axes,
            rows["place"],
            rows,
            ("similarity", "low", "high"),
            color=COMPONENT_COLOURS.get(component, MUTED),
            marker=COMPONENT_MARKERS[component],
            alpha=0.75,
            markeredgewidth=0,
            markersize=marker_size,
            label=component,
        )
    if sized and layers["share"].n_unique() > MOST_SIZES:
        logarithmic(axes)
    axes.set_ylabel(LIKE_FULL)
    scale = MARKER / marker_size
    figure.legend(loc="outside lower left", ncols=5, handletextpad=0.2, columnspacing=1, markerscale=scale)
    return figure


def _sizes(layers: pl.DataFrame) -> pl.DataFrame:
    """Return the sections of the axis, one per layer size in ascending order.

    Columns: `share` (the size), number of `layers`, `start` and `end` of the section, spacing `apart` of its layers.
    Layers are at least 1 apart, and a section takes at least 1/(MOST_SIZES + 1) of the axis to fit its label.
    """
    sizes = layers.group_by("share").agg(layers=pl.len()).sort("share")
    least = len(layers) / (MOST_SIZES + 1 - len(sizes))
    width = pl.max_horizontal(pl.col("layers") + 1, least)
    return sizes.with_columns(start=width.cum_sum() - width, end=width.cum_sum(), apart=width / (pl.col("layers") + 1))


def _beside_each_other(layers: pl.DataFrame, sizes: pl.DataFrame) -> pl.DataFrame:
    """Return layers with their `place` within the section of their size, ordered by component and depth."""
    ordered = layers.sort(pl.col("component").cast(pl.Enum(COMPONENTS)), maintain_order=True)
    number = pl.int_range(1, pl.len() + 1).over("share")
    parts = ordered.join(sizes, on="share", maintain_order="left")
    return parts.with_columns(place=pl.col("start") + pl.col("apart") * number)


def _name_sizes(axes: Axes, sizes: pl.DataFrame) -> None:
    """Label each section with its size and number of layers, and shade every other section."""
    for start, end in sizes.select("start", "end").gather_every(2).iter_rows():
        axes.axvspan(start, end, color=FAINT, alpha=0.35, linewidth=0, zorder=0)
    names = [
        f"{size_of(share)}\n{'1 layer' if layers == 1 else f'{layers} layers'}"
        for share, layers in sizes.select("share", "layers").iter_rows()
    ]
    axes.set_xticks((sizes["start"] + sizes["end"]) / 2, names, fontsize=7.5)
    axes.tick_params(axis="x", length=0)
    axes.set_xlim(0, sizes["end"][-1])
    axes.set_xlabel("layer's share of the parameters (sorted by component and depth within a size)")


def _at_their_block(layers: pl.DataFrame) -> pl.DataFrame:
    """Return layers with their block as `place`; layers outside the blocks are to the left, after a gap."""
    apart = layers.select((pl.col("block").max() / 10).ceil().cast(pl.Int32).fill_null(0)).item()
    return layers.with_columns(place=pl.col("block").fill_null(-max(2, apart)))


def _number_blocks(axes: Axes, layers: pl.DataFrame) -> None:
    n_blocks = int(layers["place"].to_numpy().max()) + 1
    blocks = range(0, n_blocks, max(1, round(n_blocks / 16)))
    outside = layers.filter(pl.col("block").is_null())["place"].to_list()[:1]
    axes.set_xticks([*outside, *blocks], [OUTSIDE] * len(outside) + [str(block) for block in blocks])
    axes.set_xlabel("transformer block")


@styled
def parameters_of_components(parameters_per_layer: pl.DataFrame) -> Figure:
    """Draw the distribution of the model's parameters over its components.

    Raises:
        TableError: Sizes are unknown.
    """
    if parameters_per_layer["share"].has_nulls():
        raise TableError("parameters_per_layer has no layer sizes; omit its figure")
    sizes = parameters_per_layer.group_by("component").agg(pl.col("parameters", "share").sum(), layers=pl.len())
    components = [name for name in COMPONENTS if name in sizes["component"]]
    sizes = pl.DataFrame({"component": components}).join(sizes, on="component", maintain_order="left")
    figure = new_figure(_parameters_title(sizes), height=0.9 + 0.27 * len(sizes))
    axes = figure.subplots()
    positions = -np.arange(len(sizes))
    axes.barh(positions, 100 * sizes["share"], height=0.66, color=BLUE)
    for position, row in zip(positions, sizes.iter_rows(named=True), strict=True):
        tensors = "1 tensor" if row["layers"] == 1 else f"{row['layers']} tensors"
        axes.annotate(
            f"{percent(row['share'])} · {count(row['parameters'])} in {tensors}",
            (100 * row["share"], position),
            (4, 0),
            textcoords="offset points",
            va="center",
            fontsize=8,
        )
    axes.set_yticks(positions, components)
    axes.set_xlim(0, min(100, 150 * max(sizes["share"])))
    axes.set_xlabel("share of the model's parameters (%)")
    axes.grid(axis="x", color=FAINT)
    bare(axes)
    return figure


def _parameters_title(sizes: pl.DataFrame) -> str:
    part = pl.col("component").str.extract(r"^(attention|MLP|embedding)").fill_null("other")
    shares = sizes.group_by(part.alias("part"), maintain_order=True).agg(pl.col("share").sum())
    listed = ", ".join(f"{part} {percent(share)}" for part, share in shares.sort("share", descending=True).iter_rows())
    return f"Of {count(sum(sizes['parameters']))} parameters: {listed}"


def described(table: pl.DataFrame, parameters_per_layer: pl.DataFrame) -> pl.DataFrame:
    """Return a table of layers with component, block and share added, in the table's order.

    Raises:
        TableError: A layer is not in `parameters_per_layer`.
    """
    named = pl.col("layer").cast(pl.String)
    columns = parameters_per_layer.select(named, "component", "block", "share")
    layers = table.with_columns(named).join(columns, on="layer", how="left", maintain_order="left")
    for unknown in layers.filter(pl.col("component").is_null())["layer"][:1]:
        raise TableError(f"layer {unknown!r} is not in parameters_per_layer: materialize that table again")
    return layers


def _highest(layers: pl.DataFrame, column: str, *, lowest: bool = False) -> dict[str, Any]:
    """Return the layer with the highest (or lowest) value; ties go to the first in model order."""
    return layers.sort(column, descending=not lowest, maintain_order=True).row(0, named=True)
