"""Which figures there are of a setting, from which tables, and how they are read.

The report shows them in these groups, the web UI and notebooks each beside the answer that it is the picture of.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import polars as pl
from matplotlib.figure import Figure

from gradsim import plots
from gradsim.analysis import Criterion
from gradsim.analysis.question import Tables
from gradsim.analysis.questions import QUESTIONS, SIZES
from gradsim.tables import SCHEMAS

WHISKERS = "Lines and bands are 95\u00a0% intervals."


@dataclass(frozen=True)
class FigureOf:
    """A figure that a setting may have, of which the report says how to read it.

    Attributes:
        name: of it.
        answer: the table that it is the picture of.
        tables: those behind it, all of which must be there.
        draw: makes it.
        note: how to read it.
        filled: those of `tables` without whose rows there is nothing to draw; all if none is named.
        drawable: whether rows are such that there is something to draw.
    """

    name: str
    answer: str
    tables: tuple[str, ...]
    draw: Callable[[Tables], Figure]
    note: str
    filled: tuple[str, ...] = ()
    drawable: Callable[[Tables], bool] = lambda _: True

    def can_be_drawn(self, tables: Tables) -> bool:
        """Whether what it needs is there."""
        if any(name not in tables for name in self.tables):
            return False
        if any(tables[name].is_empty() for name in self.filled or self.tables):
            return False
        return self.drawable(tables)


def _selection_order(tables: Tables, criterion: Criterion) -> Figure:
    return plots.selection_order(tables[f"greedy_by_{criterion}"], tables[SIZES], criterion)


SELECTION = (
    FigureOf(
        "greedy_selection",
        "held_out_selection",
        ("greedy_by_accuracy", "greedy_by_similarity", "held_out_selection", "accuracy", "select_or_project"),
        lambda tables: plots.greedy_selection(
            tables["greedy_by_accuracy"],
            tables["greedy_by_similarity"],
            tables["held_out_selection"],
            tables["accuracy"],
            tables["select_or_project"],
        ),
        "Layers are taken one after the other, each time the one that helps most. In sample they are judged on the "
        "queries that they were chosen by; held out on the other half. " + WHISKERS,
        filled=("greedy_by_accuracy", "greedy_by_similarity"),
    ),
    FigureOf(
        "selected_or_projected",
        "select_or_project",
        ("select_or_project",),
        lambda tables: plots.selected_or_projected(tables["select_or_project"]),
        "Each projection beside whole layers with at most as many parameters as it has dimensions, chosen on the half "
        "of the queries that they are not judged on. " + WHISKERS,
    ),
)

LAYERS = (
    FigureOf(
        "accuracy_of_layers",
        "accuracy_per_layer",
        ("accuracy_per_layer", SIZES),
        lambda tables: plots.accuracy_of_layers(tables["accuracy_per_layer"], tables[SIZES]),
        "Sources that each layer\u2019s gradient finds alone, by the part of the model that the layer is.",
    ),
    FigureOf(
        "means_of_groups",
        "layer_means",
        ("layer_means",),
        lambda tables: plots.means_of_groups(tables["layer_means"]),
        "Means over the layers of one kind. " + WHISKERS,
    ),
    FigureOf(
        "means_by_depth",
        "layer_means",
        ("layer_means",),
        lambda tables: plots.means_by_depth(tables["layer_means"]),
        "Means over the layers of one block, from the input to the output. " + WHISKERS,
        drawable=lambda tables: "block" in tables["layer_means"]["grouping"],
    ),
    FigureOf(
        "attention_and_mlp",
        "attention_against_mlp",
        ("layer_means", "attention_against_mlp"),
        lambda tables: plots.attention_and_mlp(tables["layer_means"], tables["attention_against_mlp"]),
        "Above zero, attention\u2019s layers are better on average; below it, the MLP\u2019s. " + WHISKERS,
    ),
    FigureOf(
        "layers_against_full_gradient",
        "similarity_to_full_gradient",
        ("similarity_to_full_gradient", SIZES),
        lambda tables: plots.layers_against_full_gradient(tables["similarity_to_full_gradient"], tables[SIZES]),
        "The nearer to 1, the more are a layer\u2019s similarities of all pairs those of the whole gradient. A cosine, "
        "not a correlation: pairs that are alike on average count, too.",
    ),
    *(
        FigureOf(
            f"selection_order_{criterion}",
            f"greedy_by_{criterion}",
            (f"greedy_by_{criterion}", SIZES),
            partial(_selection_order, criterion=criterion),
            "The step of the greedy selection at which each layer is taken; bold steps raise what came before. Of "
            "layers that serve equally well the first in model order is taken: between bold steps order says little.",
        )
        for criterion in Criterion
    ),
    FigureOf(
        "differences_of_layers",
        "layer_differences",
        ("layer_differences", "accuracy_per_layer"),
        lambda tables: plots.differences_of_layers(tables["layer_differences"], tables["accuracy_per_layer"]),
        "The longer a layer\u2019s line below, the less the queries tell which place of the order it deserves; "
        "exact McNemar tests of every two layers, with Holm\u2019s correction for all of them.",
    ),
)

PROJECTIONS = (
    FigureOf(
        "errors_of_projections",
        "projection_audit",
        ("projection_audit",),
        lambda tables: plots.errors_of_projections(tables["projection_audit"]),
        "Measured errors beside those that theory expects of such a projection; and how far the projected similarities "
        "are from the full ones, as stored and as rightly scaled ones would be.",
    ),
)

RETRIEVAL = (
    FigureOf(
        "recall_at_k",
        "retrieval",
        ("retrieval",),
        lambda tables: plots.recall_at_k(tables["retrieval"]),
        "Share of queries whose source is among the k most similar candidates. " + WHISKERS,
    ),
    FigureOf(
        "source_against_others",
        "decisions",
        ("decisions",),
        lambda tables: plots.source_against_others(tables["decisions"]),
        "The further apart the two heaps, the surer the decisions; where they overlap, queries go wrong.",
    ),
)


def figure_of(table: str, tables: Tables, setting: str) -> Figure | None:
    """The picture of an answer.

    Args:
        table: its name.
        tables: its rows and those of what it was made from, by name.
        setting: that it is of.

    Returns:
        None where there is nothing to draw.
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

# Where an answer has several, the first is shown.
_OF_TABLE: Mapping[str, FigureOf] = {
    figure.answer: figure for figure in reversed((*SELECTION, *LAYERS, *PROJECTIONS, *RETRIEVAL, *EXTENSIONS))
}
