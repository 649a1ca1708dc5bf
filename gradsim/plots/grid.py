"""Grid of layers: transformer blocks as columns, components as rows."""

import re
from dataclasses import dataclass

import numpy as np
import polars as pl
import seaborn
from matplotlib.axes import Axes

from gradsim.analysis.arrays import Floats, Positions
from gradsim.plots.labels import layer_label
from gradsim.plots.style import PAPER, bare

MOST_NUMBERED = 18
"""Maximum number of columns that leaves room for a number in each cell."""

OUTSIDE = "none"
"""Tick label for layers outside the transformer blocks."""


@dataclass(frozen=True)
class LayerGrid:
    """Positions of layers in the grid.

    Each layer outside the blocks has its own row with a single cell, to the left of the blocks.

    Attributes:
        names: Names of the rows.
        n_blocks: Number of transformer blocks.
        first_block: Column of block 0. Layers outside the blocks are in column 0, followed by a gap.
        rows: Row of each layer, (n_layers,).
        columns: Column of each layer, (n_layers,).
    """

    names: list[str]
    n_blocks: int
    first_block: int
    rows: Positions
    columns: Positions

    @classmethod
    def of(cls, layers: pl.DataFrame) -> "LayerGrid":
        """Return the grid of `layers` (`layer`, `component`, `block`), in model order with at least one in a block."""
        inside = layers["block"].is_not_null().to_numpy()
        kinds = _kinds(layers.filter(inside))
        names = list(dict.fromkeys(kinds))
        outside = [layer_label(layer) for layer in layers.filter(~inside)["layer"]]
        rows = np.empty(len(layers), dtype=np.int64)
        rows[inside] = [names.index(kind) for kind in kinds]
        rows[~inside] = len(names) + np.arange(len(outside))
        n_blocks = layers.select(pl.col("block").max() + 1).item()
        first_block = 1 + _blocks_a_label(n_blocks) if outside else 0
        columns = layers.select(pl.col("block") + first_block).to_series().fill_null(0).to_numpy().astype(np.int64)
        return cls([*names, *outside], n_blocks, first_block, rows, columns)

    @property
    def n_columns(self) -> int:
        """Number of columns, including the gap."""
        return self.first_block + self.n_blocks

    @property
    def height(self) -> float:
        """Height of a figure with this grid, in inches."""
        return 1.3 + 0.27 * len(self.names)

    @property
    def numbered(self) -> bool:
        """Whether cells have room for a number."""
        return self.n_columns <= MOST_NUMBERED

    def draw(self, axes: Axes, values: Floats, **looks: object) -> None:
        """Draw one cell per layer, except where the value is NaN.

        Args:
            axes: Axes to draw on.
            values: Value of each layer, (n_layers,).
            looks: Keyword arguments of `seaborn.heatmap`.
        """
        cells = np.full((len(self.names), self.n_columns), np.nan)
        cells[self.rows, self.columns] = values
        seaborn.heatmap(
            cells,
            ax=axes,
            mask=np.isnan(cells),
            linewidths=min(0.8, 12 / self.n_columns),
            linecolor=PAPER,
            yticklabels=self.names,
            xticklabels=False,
            **looks,
        )
        blocks = np.arange(0, self.n_blocks, _blocks_a_label(self.n_blocks))
        outside = [0] if self.first_block else []
        ticks = np.array([*outside, *(self.first_block + blocks)]) + 0.5
        axes.set_xticks(ticks, [OUTSIDE] * len(outside) + [str(block) for block in blocks])
        axes.tick_params(axis="y", rotation=0)
        axes.set_xlabel("transformer block")
        bare(axes)


def _blocks_a_label(n_blocks: int) -> int:
    """Return the step between labelled blocks."""
    return max(1, round(n_blocks / 16))


def _kinds(layers: pl.DataFrame) -> list[str]:
    """Return the row name of each layer: its component, or its own name if a block has several of that component."""
    several = layers.select(pl.len().over("component", "block").max().over("component") > 1).to_series()
    within = [re.sub(r"^\d+\.", "", layer_label(layer)) for layer in layers["layer"]]
    return [
        name if many else component for name, many, component in zip(within, several, layers["component"], strict=True)
    ]
