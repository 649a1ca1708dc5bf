"""Registry of a setting's figures: their tables, drawing functions and captions.

The report shows the figures in the groups below. The web UI and notebooks show each figure with the analysis that it
illustrates.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import polars as pl
from matplotlib.figure import Figure

from gradsim import plots
from gradsim.analysis import Criterion
from gradsim.analysis.question import Tables
from gradsim.analysis.questions import QUESTIONS, SIZES
from gradsim.tables import SCHEMAS

WHISKERS = "Lines and bands show 95\u00a0% confidence intervals."


@dataclass(frozen=True)
class FigureOf:
    """Figure that a setting may have.

    Attributes:
        name: Name of the figure.
        answer: Table that the figure illustrates.
        tables: Tables that the figure requires.
        draw: Function that draws the figure.
        note: Caption that explains how to read the figure.
        filled: Subset of `tables` that must have rows; empty means all of them.
        drawable: Additional condition on the tables.
    """

    name: str
    answer: str
    tables: tuple[str, ...]
    draw: Callable[[Tables], Figure]
    note: str
    filled: tuple[str, ...] = ()
    drawable: Callable[[Tables], bool] = lambda _: True

    def can_be_drawn(self, tables: Tables) -> bool:
        """Return whether the required tables exist, have rows and meet the condition."""
        if any(name not in tables for name in self.tables):
            return False
        if any(tables[name].is_empty() for name in self.filled or self.tables):
            return False
        return self.drawable(tables)


def _figure(draw: Callable[..., Figure], answer: str, tables: tuple[str, ...], note: str, **when: Any) -> FigureOf:
    """Return the figure that a function of `gradsim.plots` draws from these tables, in this order."""
    return FigureOf(draw.__name__, answer, tables, lambda given: draw(*(given[name] for name in tables)), note, **when)


def _selection_order(tables: Tables, criterion: Criterion) -> Figure:
    return plots.selection_order(tables[f"greedy_by_{criterion}"], tables[SIZES], criterion)


SELECTION = (
    _figure(
        plots.selected_or_projected,
        "select_or_project",
        ("select_or_project",),
        "Each projection is compared with whole layers that have at most as many parameters as it has dimensions. The "
        "layers are selected on one half of the queries and evaluated on the other. " + WHISKERS,
    ),
    _figure(
        plots.greedy_selection,
        "held_out_selection",
        ("greedy_by_accuracy", "greedy_by_similarity", "held_out_selection", "accuracy", "select_or_project"),
        "Greedy selection adds the layer that improves the criterion most at each step. In-sample curves evaluate the "
        "layers on the queries that selected them, held-out curves on the other half. " + WHISKERS,
        filled=("greedy_by_accuracy", "greedy_by_similarity"),
    ),
)

LAYERS = (
    _figure(
        plots.accuracy_of_layers,
        "accuracy_per_layer",
        ("accuracy_per_layer", SIZES),
        "Accuracy of each layer\u2019s gradient on its own, by component and transformer block.",
    ),
    _figure(
        plots.means_of_groups,
        "layer_means",
        ("layer_means",),
        "Means over the layers of each component; the number of layers follows the name. " + WHISKERS,
    ),
    _figure(
        plots.means_by_depth,
        "layer_means",
        ("layer_means",),
        "Means over the layers of each block, from input to output. " + WHISKERS,
        drawable=lambda tables: "block" in tables["layer_means"]["grouping"],
    ),
    _figure(
        plots.attention_and_mlp,
        "attention_against_mlp",
        ("layer_means", "attention_against_mlp"),
        "Above zero, the layers that the axis names first are better on average, below zero the others. " + WHISKERS,
    ),
    _figure(
        plots.layers_against_full_gradient,
        "similarity_to_full_gradient",
        ("similarity_to_full_gradient", SIZES),
        "Cosine between the similarities of all pairs in one layer and in the full gradient; 1 means proportional. "
        "Unlike a correlation, it is not centred, so the mean similarity counts, too.",
    ),
    *(
        FigureOf(
            f"selection_order_{criterion}",
            f"greedy_by_{criterion}",
            (f"greedy_by_{criterion}", SIZES),
            partial(_selection_order, criterion=criterion),
            "Step at which the greedy selection adds each layer; bold steps improve on all previous values. Ties are "
            "broken in model order, so the order between bold steps is mostly arbitrary.",
        )
        for criterion in Criterion
    ),
    _figure(
        plots.differences_of_layers,
        "layer_differences",
        ("layer_differences", "accuracy_per_layer"),
        "Longer ranges mean a less certain rank. Ranges follow from exact McNemar tests of all pairs of layers with "
        "Holm\u2019s correction.",
    ),
)

PROJECTIONS = (
    _figure(
        plots.errors_of_projections,
        "projection_audit",
        ("projection_audit",),
        "Left: measured errors and the errors that theory predicts. Right: distance of the projected similarities from "
        "those of the full gradient, for the stored projection and a simulated dense, correctly scaled one.",
    ),
)

RETRIEVAL = (
    _figure(
        plots.recall_at_k,
        "retrieval",
        ("retrieval",),
        "Recall at k is the share of queries whose source is among the k most similar candidates; MRR is the mean "
        "reciprocal rank. " + WHISKERS,
    ),
    _figure(
        plots.source_against_others,
        "decisions",
        ("decisions",),
        "The further apart the two distributions, the clearer the decisions; wrong decisions occur where they overlap.",
    ),
)


def figure_of(table: str, tables: Tables, setting: str) -> Figure | None:
    """Return the figure of an analysis, or None if there is nothing to draw.

    Args:
        table: Name of the analysis.
        tables: The analysis and its inputs by name.
        setting: Name of the setting.
    """
    if table == "accuracy":
        return plots.accuracy_of_methods({setting: tables[table]}, {setting: SCHEMAS["controls"].empty()})
    if table == "similarity_over_layers":
        return _of_most_divergent(tables[table])
    figure = _OF_TABLE.get(table)
    return figure.draw(tables) if figure and figure.can_be_drawn(tables) else None


def _of_most_divergent(similarity_over_layers: pl.DataFrame) -> Figure:
    first = similarity_over_layers["query_id"][0]
    return plots.similarity_over_layers(similarity_over_layers.filter(pl.col("query_id") == first))


EXTENSIONS = tuple(
    FigureOf(name, name, (name,), question.figure, question.description)
    for name, question in QUESTIONS.items()
    if question.figure
)
"""Figures of analyses that other packages add."""

# If an analysis has several figures, the first is shown.
_OF_TABLE: Mapping[str, FigureOf] = {
    figure.answer: figure for figure in reversed((*SELECTION, *LAYERS, *PROJECTIONS, *RETRIEVAL, *EXTENSIONS))
}
