"""Figures with one mark a layer."""

import re
from typing import Any

import numpy as np
import polars as pl
import seaborn
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator

from gradsim.analysis.layers import COMPONENTS
from gradsim.errors import TableError
from gradsim.plots.labels import count, layer_label, percent
from gradsim.plots.style import (
    BLUE,
    COMPONENT_COLOURS,
    COMPONENT_MARKERS,
    FAINT,
    MUTED,
    bare,
    new_figure,
    styled,
)

MOST_DOTS = 40
"""Up to so many layers each get a line with an interval; more become a heat map."""

MOST_NUMBERED_BLOCKS = 18
"""Up to so many blocks the heat map's cells have room for their number."""


@styled
def accuracy_of_layers(accuracy_per_layer: pl.DataFrame, parameters_per_layer: pl.DataFrame) -> Figure:
    """How often each layer's gradient alone finds the source, by block and component.

    Args:
        accuracy_per_layer: the table of that name.
        parameters_per_layer: the table of that name, for the same layers.
    """
    layers = _joined(accuracy_per_layer, parameters_per_layer)
    title = _accuracy_title(layers)
    if len(layers) <= MOST_DOTS or layers["block"].null_count() == len(layers):
        return _layer_intervals(layers, title)
    return _layer_heat_map(layers, title)


def _accuracy_title(layers: pl.DataFrame) -> str:
    best, worst = _highest(layers, "accuracy"), _highest(layers, "accuracy", lowest=True)
    if best["accuracy"] == worst["accuracy"]:
        return f"Alone, every layer finds {percent(best['accuracy'])} of the sources"
    return (
        f"Alone, {layer_label(best['layer'])} finds the most sources ({percent(best['accuracy'])}), "
        f"{layer_label(worst['layer'])} the fewest ({percent(worst['accuracy'])})"
    )


def _layer_intervals(layers: pl.DataFrame, title: str) -> Figure:
    figure = new_figure(title, height=1.1 + 0.19 * len(layers))
    axes = figure.subplots()
    positions = -np.arange(len(layers))
    axes.hlines(positions, 100 * layers["low"], 100 * layers["high"], color=BLUE, linewidth=1.6)
    axes.plot(100 * layers["accuracy"], positions, "o", color=BLUE, markersize=4.5)
    axes.set_yticks(positions, [layer_label(layer) for layer in layers["layer"]], fontsize=8)
    axes.set_ylim(positions[-1] - 0.6, 0.6)
    axes.set_xlabel("queries whose source is found (%), with 95 % intervals")
    axes.grid(axis="x")
    bare(axes)
    return figure


def _layer_heat_map(layers: pl.DataFrame, title: str) -> Figure:
    inside = layers.filter(pl.col("block").is_not_null())
    outside = layers.filter(pl.col("block").is_null())
    kinds = inside.with_columns(kind=_kinds(inside))
    names = kinds["kind"].unique(maintain_order=True).to_list()
    n_blocks = max(inside["block"]) + 1
    cells = np.full((len(names) + len(outside), n_blocks), np.nan)
    for kind, block, accuracy in kinds.select("kind", "block", "accuracy").iter_rows():
        cells[names.index(kind), block] = 100 * accuracy
    # A layer outside the blocks has a row of its own, with one cell.
    cells[len(names) :, 0] = 100 * outside["accuracy"].to_numpy()
    names += [layer_label(layer) for layer in outside["layer"]]

    figure = new_figure(title, height=1.3 + 0.27 * len(names))
    axes = figure.subplots()
    numbered = n_blocks <= MOST_NUMBERED_BLOCKS
    seaborn.heatmap(
        cells,
        ax=axes,
        cmap="cividis",
        mask=np.isnan(cells),
        linewidths=0.5,
        linecolor="none",
        annot=numbered,
        fmt=".1f",
        annot_kws={"fontsize": 6.5},
        yticklabels=names,
        xticklabels=max(1, round(n_blocks / 16)),
        cbar_kws={"label": "sources found (%)", "aspect": 15, "pad": 0.02},
    )
    axes.tick_params(axis="y", rotation=0)
    axes.set_xlabel("transformer block")
    bare(axes)
    return figure


@styled
def layers_against_full_gradient(
    similarity_to_full_gradient: pl.DataFrame, parameters_per_layer: pl.DataFrame
) -> Figure:
    """How alike each layer and the full gradient see the pairs, against the layer's size.

    Args:
        similarity_to_full_gradient: the table of that name.
        parameters_per_layer: the table of that name, for the same layers.
    """
    layers = _joined(similarity_to_full_gradient, parameters_per_layer)
    best = _highest(layers, "similarity")
    title = (
        f"{layer_label(best['layer'])}, {percent(best['share'])} of the parameters, sees the pairs "
        f"most as the full gradient does (cosine {best['similarity']:.3f})"
    )
    figure = new_figure(title, height=3.6)
    axes = figure.subplots()
    # Layers of one size would hide each other: their components stand side by side.
    sizes = layers.select("share", "component").unique(maintain_order=True)
    beside = sizes.with_columns(
        share_drawn=pl.col("share") * 1.12 ** (pl.int_range(pl.len()) - (pl.len() - 1) / 2).over("share")
    )
    layers = layers.join(beside, on=["share", "component"], maintain_order="left")
    for component in COMPONENTS:
        rows = layers.filter(pl.col("component") == component)
        if rows.is_empty():
            continue
        axes.plot(
            100 * rows["share_drawn"],
            rows["similarity"],
            COMPONENT_MARKERS[component],
            color=COMPONENT_COLOURS.get(component, MUTED),
            markersize=5,
            alpha=0.75,
            markeredgewidth=0,
            label=component,
        )
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(lambda share, _: f"{share:g}")
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("share of the model's parameters (%, log scale; equal sizes side by side)")
    axes.set_ylabel("similarity to the full gradient (cosine)")
    axes.grid()
    figure.legend(loc="outside right center", handletextpad=0.2)
    return figure


@styled
def parameters_of_components(parameters_per_layer: pl.DataFrame) -> Figure:
    """How the model's parameters are shared out among its components.

    Args:
        parameters_per_layer: the table of that name.
    """
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
    axes.set_xlim(0, 150 * max(sizes["share"]))
    axes.set_xlabel("share of the model's parameters (%)")
    axes.grid(axis="x", color=FAINT)
    bare(axes)
    return figure


def _parameters_title(sizes: pl.DataFrame) -> str:
    part = pl.col("component").str.extract(r"^(attention|MLP|embedding)").fill_null("the rest")
    shares = sizes.group_by(part.alias("part"), maintain_order=True).agg(pl.col("share").sum())
    listed = ", ".join(f"{part} {percent(share)}" for part, share in shares.sort("share", descending=True).iter_rows())
    return f"Of {count(sum(sizes['parameters']))} parameters: {listed}"


def _joined(table: pl.DataFrame, parameters_per_layer: pl.DataFrame) -> pl.DataFrame:
    """A table of layers with component, block and share of each, in the table's order."""
    named = pl.col("layer").cast(pl.String)
    layers = table.with_columns(named).join(
        parameters_per_layer.with_columns(named), on="layer", how="left", maintain_order="left"
    )
    for unknown in layers.filter(pl.col("share").is_null())["layer"][:1]:
        raise TableError(f"layer {unknown!r} is not in parameters_per_layer: materialize it again")
    return layers


def _highest(layers: pl.DataFrame, column: str, *, lowest: bool = False) -> dict[str, Any]:
    """The layer with the highest value, the first in model order if several have it."""
    return layers.sort(column, descending=not lowest, maintain_order=True).row(0, named=True)


def _kinds(layers: pl.DataFrame) -> pl.Series:
    """What a layer is within its block: its component, or its name where a block has several of it."""
    several = layers.select(pl.len().over("component", "block").max().over("component") > 1).to_series()
    within = [re.sub(r"^\d+\.", "", layer_label(layer)) for layer in layers["layer"]]
    return pl.Series(
        [
            name if many else component
            for name, many, component in zip(within, several, layers["component"], strict=True)
        ]
    )
