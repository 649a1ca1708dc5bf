"""Select or project: layers of at most so many parameters beside gradients projected to so many dimensions."""

from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from gradsim.analysis.evaluation import Criterion, Evaluation
from gradsim.analysis.layer_dots import LayerDots
from gradsim.analysis.projections import observed_similarity
from gradsim.analysis.schema import Schema, column_types
from gradsim.analysis.selection.budget import evaluate_selection, select_within
from gradsim.analysis.selection.held_out import split_halves
from gradsim.analysis.selection.sizes import sizes_of
from gradsim.analysis.statistics import Bootstrap, exact_mcnemar, holm, percentile_interval

Positions = NDArray[np.int64]

SELECT_OR_PROJECT: Schema = {
    "projection": (pl.String, "name of the projection"),
    "dimension": (pl.Int64, "its dimensions, and how many parameters the selected layers may have"),
    "criterion": (pl.String, "accuracy, or similarity to the full gradient: what layers are selected by"),
    "layers": (pl.Int32, "number of layers selected, on all queries"),
    "parameters": (pl.Int64, "their parameters in all"),
    "selected_accuracy": (pl.Float64, "accuracy by layers selected on the half that the query is not in"),
    "projected_accuracy": (pl.Float64, "accuracy by the projected gradients"),
    "difference": (pl.Float64, "selected_accuracy less projected_accuracy"),
    "low": (pl.Float64, "lower end of its 95 % interval, a paired bootstrap over queries"),
    "high": (pl.Float64, "the interval's upper end"),
    "only_selected": (pl.Int64, "queries that count more by the selected layers"),
    "only_projected": (pl.Int64, "queries that count more by the projection"),
    "p": (pl.Float64, "exact McNemar test of the two"),
    "p_holm": (pl.Float64, "the same by Holm's correction for all rows of this table"),
    "selected_similarity": (pl.Float64, "similarity to the full gradient of the layers selected on the other half"),
    "projected_similarity": (pl.Float64, "the same of the projection"),
    "similarity_difference": (pl.Float64, "selected_similarity less projected_similarity"),
    "similarity_low": (pl.Float64, "lower end of its 95 % interval, a paired bootstrap over queries"),
    "similarity_high": (pl.Float64, "the interval's upper end"),
}


def select_or_project(
    layer_dots: LayerDots, parameters_per_layer: pl.DataFrame, projected: pl.DataFrame, *, seed: int
) -> pl.DataFrame:
    """Selections, each judged on the half of the queries that it was not made on, beside every projection.

    No rows where nothing was projected, the layers' sizes are unknown, no layer fits, or there is but one query.

    Args:
        layer_dots: of all queries.
        parameters_per_layer: the table of that name.
        projected: the table `projected_similarity`.
        seed: of the halves and the bootstrap.

    Raises:
        TableError: the tables do not have the same pairs.
    """
    sizes = sizes_of(layer_dots.layers, parameters_per_layer)
    projections = projected.select("projection", "dimension").unique(maintain_order=True)
    if sizes is None or len(layer_dots.query_self_dots) < 2:
        projections = projections.clear()
    bootstrap = Bootstrap(len(layer_dots.query_self_dots), seed=seed)
    rows = [
        _Contest.of(layer_dots, sizes, criterion, projected, name, dimension, seed).row(bootstrap)
        for name, dimension in projections.iter_rows()
        for criterion in Criterion
        if sizes is not None and sizes.min() <= dimension
    ]
    table = pl.DataFrame(rows, schema=column_types(SELECT_OR_PROJECT))
    return table.with_columns(p_holm=pl.Series(holm(table["p"].to_numpy()), dtype=pl.Float64))


@dataclass(frozen=True)
class _Contest:
    """A projection and the selection of as many parameters.

    Attributes:
        projection: name of the projection.
        dimension: its dimensions.
        criterion: of the selection.
        layers: how many were selected on all queries.
        parameters: of these.
        selected: by layers selected on other queries; one column.
        projected: by the projection; one column.
    """

    projection: str
    dimension: int
    criterion: Criterion
    layers: int
    parameters: int
    selected: Evaluation
    projected: Evaluation

    @classmethod
    def of(
        cls,
        layer_dots: LayerDots,
        sizes: Positions,
        criterion: Criterion,
        projected: pl.DataFrame,
        projection: str,
        dimension: int,
        seed: int,
    ) -> "_Contest":
        n_queries = len(layer_dots.query_self_dots)
        held_out = Evaluation.empty(n_queries, 1)
        for chosen_on, judged_on in split_halves(n_queries, seed=seed):
            chosen = select_within(layer_dots.of_queries(chosen_on), criterion, sizes, dimension)
            held_out.add(evaluate_selection(layer_dots.of_queries(judged_on), chosen), judged_on)
        whole = select_within(layer_dots, criterion, sizes, dimension)
        observed = observed_similarity(projected, layer_dots, projection, dimension)
        return cls(
            projection,
            dimension,
            criterion,
            layers=len(whole),
            parameters=int(sizes[whole].sum()),
            selected=held_out,
            projected=Evaluation.of(layer_dots.lists, observed[:, None], layer_dots.similarity()),
        )

    def row(self, bootstrap: Bootstrap) -> dict[str, object]:
        """Of the table, but for Holm's correction."""
        only_selected = int((self.selected.credit > self.projected.credit).sum())
        only_projected = int((self.selected.credit < self.projected.credit).sum())
        values = {
            criterion: (float(self.selected.value(criterion)[0]), float(self.projected.value(criterion)[0]))
            for criterion in Criterion
        }
        ends = {
            criterion: percentile_interval(
                self.selected.draws(criterion, bootstrap)[:, 0] - self.projected.draws(criterion, bootstrap)[:, 0]
            )
            for criterion in Criterion
        }
        (selected, projected), (low, high) = values[Criterion.ACCURACY], ends[Criterion.ACCURACY]
        (like_full, projected_like_full), (similarity_low, similarity_high) = (
            values[Criterion.SIMILARITY],
            ends[Criterion.SIMILARITY],
        )
        return {
            "projection": self.projection,
            "dimension": self.dimension,
            "criterion": str(self.criterion),
            "layers": self.layers,
            "parameters": self.parameters,
            "selected_accuracy": selected,
            "projected_accuracy": projected,
            "difference": selected - projected,
            "low": float(low),
            "high": float(high),
            "only_selected": only_selected,
            "only_projected": only_projected,
            "p": float(exact_mcnemar(only_selected, only_projected)),
            "selected_similarity": like_full,
            "projected_similarity": projected_like_full,
            "similarity_difference": like_full - projected_like_full,
            "similarity_low": float(similarity_low),
            "similarity_high": float(similarity_high),
        }
