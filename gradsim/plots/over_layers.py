"""Similarity of a query to its candidates in every layer."""

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gradsim.analysis.arrays import Floats, Members, Positions
from gradsim.analysis.layers import block_of, component_of
from gradsim.errors import TableError
from gradsim.plots.grid import LayerGrid
from gradsim.plots.labels import layer_label
from gradsim.plots.marks import DASHED, DOTTED, refuse_empty, whole_numbers
from gradsim.plots.style import BLUE, BROWN, FAINT, GREEN, MUTED, ORANGE, PURPLE, VERMILION, new_figure, styled

OTHERS = (
    (VERMILION, DASHED),
    (GREEN, DOTTED),
    (ORANGE, (0, (6, 1.5, 1, 1.5))),
    (PURPLE, (0, (2, 1))),
    (BROWN, (0, (6, 1))),
    (MUTED, (0, (3, 1, 1, 1, 1, 1))),
)
"""Line styles of the other candidates. With more candidates, only their range and the most similar one are drawn."""

MOST_PANELS = 12
"""Maximum number of layer kinds per block with separate panels."""

MOST_NAMED = 12
"""Maximum number of layers per panel with names on the axis."""

LETTERS_ACROSS = 75
"""Characters of legend labels that fit on a row."""

OUTSIDE = "outside the blocks"

Looks: TypeAlias = "tuple[str, str | tuple[int, tuple[float, ...]]]"


@styled
def similarity_over_layers(similarity_over_layers: pl.DataFrame) -> Figure:
    """Draw the similarity of a query to each of its candidates in every single layer, in model order.

    Each kind of layer within a block has a panel with its own scale. Models without blocks or with too many kinds have
    a single panel. The thick line is the source, with a dot at each layer where it is the most similar candidate.

    Raises:
        TableError: There are no rows, several queries, or the source is not a candidate.
    """
    view = _QueryView.of(similarity_over_layers)
    layers = pl.DataFrame(
        {
            "layer": view.layers,
            "component": [component_of(layer) for layer in view.layers],
            "block": pl.Series([block_of(layer) for layer in view.layers], dtype=pl.Int32),
        }
    )
    panels = _panels(layers)
    columns = min(2, len(panels))
    rows = -(-len(panels) // columns)
    figure = new_figure(view.title, height=1.2 + max(2.4, 1.05 * rows))
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes, (name, positions) in zip(grid, panels.items(), strict=False):
        _draw_panel(axes, view, layers[positions], positions)
        axes.set_title(name)
    for axes in grid[len(panels) :]:
        axes.set_visible(False)
    figure.supylabel("similarity to the query (cosine)", fontsize=9)
    last = max(place for place, name in enumerate(panels) if name != OUTSIDE)
    grid[last].set_xlabel("transformer block" if len(panels) > 1 else "layers in model order")
    handles, labels = grid[0].get_legend_handles_labels()
    columns = max(1, min(3, LETTERS_ACROSS // max(map(len, labels))))
    figure.legend(handles, labels, loc="outside lower left", ncols=columns, columnspacing=1.5)
    return figure


@dataclass(frozen=True)
class _QueryView:
    """Similarities of a query's candidates in every layer.

    Attributes:
        query: Id of the query.
        layers: Names of the layers in model order.
        source: Similarity of the source in each layer, (n_layers,).
        others: Similarities of the other candidates by id, (n_layers,) each.
    """

    query: str
    layers: list[str]
    source: Floats
    others: dict[str, Floats]

    @classmethod
    def of(cls, table: pl.DataFrame) -> "_QueryView":
        refuse_empty(table, "similarity_over_layers", "no query was chosen")
        query = table["query_id"][0]
        if table["query_id"].n_unique() > 1:
            raise TableError("similarity_over_layers has several queries: draw one query per figure")
        groups = table.sort("rank", maintain_order=True).group_by("original_id", maintain_order=True)
        candidates = {str(original): rows["similarity"].to_numpy() for (original,), rows in groups}
        if query not in candidates:
            raise TableError(f"similarity_over_layers lacks the source of query {query!r}: materialize it again")
        source = candidates.pop(query)
        return cls(query, table["layer"].unique(maintain_order=True).to_list(), source, candidates)

    @property
    def found(self) -> Members:
        """Whether the source is the most similar candidate in each layer, (n_layers,)."""
        others = np.array(list(self.others.values())).reshape(-1, len(self.layers))
        found: Members = np.logical_and.reduce(self.source > others, axis=0)
        return found

    @property
    def title(self) -> str:
        """Sentence with the number of layers in which the source is the most similar candidate."""
        found = f"{self.found.sum()} of {len(self.layers)} layers"
        return f"The source of {self.query} is the most similar candidate in {found}"


def _panels(layers: pl.DataFrame) -> dict[str, Positions]:
    """Return the positions of the layers in each panel, by panel title."""
    inside = layers["block"].is_not_null().to_numpy()
    if layers["block"].n_unique() < 3:
        return {"": np.arange(len(layers))}
    grid = LayerGrid.of(layers)
    kinds = dict.fromkeys(grid.names[row] for row in grid.rows[inside])
    if len(kinds) > MOST_PANELS:
        return {"": np.arange(len(layers))}
    panels = {name: np.flatnonzero(inside & (grid.rows == row)) for row, name in enumerate(kinds)}
    if not inside.all():
        panels[OUTSIDE] = np.flatnonzero(~inside)
    return panels


def _draw_panel(axes: Axes, view: _QueryView, layers: pl.DataFrame, positions: Positions) -> None:
    blocks = layers["block"]
    of_blocks = blocks.null_count() == 0 and blocks.n_unique() == len(blocks)
    places = blocks.cast(pl.Int64).to_numpy() if of_blocks else np.arange(len(layers))
    axes.axhline(0, color=MUTED, linewidth=0.8, zorder=1)
    _draw_source(axes, view, places, positions)
    if len(view.others) <= len(OTHERS):
        for looks, (name, similarity) in zip(OTHERS, view.others.items(), strict=False):
            _draw_other(axes, places, similarity[positions], looks, name)
    elif view.others:
        _draw_range(axes, places, view.others, positions)
    if of_blocks:
        whole_numbers(axes, most=8)
    elif len(layers) <= MOST_NAMED:
        names = [layer_label(layer) for layer in layers["layer"]]
        axes.set_xticks(places, names, fontsize=7, rotation=0 if len(names) < 4 else 90)
        axes.margins(x=0.2)
    axes.locator_params(axis="y", nbins=4)
    axes.grid(axis="y")


def _draw_source(axes: Axes, view: _QueryView, places: Positions, positions: Positions) -> None:
    source, found = view.source[positions], view.found[positions]
    axes.plot(places, source, color=BLUE, linewidth=2, zorder=3, label=f"{view.query}, the source")
    axes.plot(places[found], source[found], "o", color=BLUE, markersize=4, zorder=3, label="most similar candidate")
    if len(places) == 1:
        axes.plot(places, source, "_", color=BLUE, markersize=12, markeredgewidth=2, zorder=3)


def _draw_other(axes: Axes, places: Positions, similarity: Floats, looks: Looks, name: str) -> None:
    colour, line = looks
    axes.plot(places, similarity, color=colour, linestyle=line, linewidth=1.2, zorder=2, label=name)
    if len(places) == 1:
        axes.plot(places, similarity, "_", color=colour, markersize=12, zorder=2)


def _draw_range(axes: Axes, places: Positions, others: dict[str, Floats], positions: Positions) -> None:
    """Draw the range of the other candidates and the one with the highest mean similarity over all layers."""
    similarities = np.stack(list(others.values()))
    best = int(similarities.mean(axis=1).argmax())
    here = similarities[:, positions]
    low, high = here.min(axis=0), here.max(axis=0)
    axes.fill_between(places, low, high, color=FAINT, linewidth=0, zorder=1, label=f"range of {len(others)} others")
    if len(places) == 1:
        axes.vlines(places, low, high, color=FAINT, linewidth=12, zorder=1)
    _draw_other(axes, places, here[best], OTHERS[0], f"{list(others)[best]}, most similar on average")
