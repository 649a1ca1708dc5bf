"""Select or project: layers of at most so many parameters beside gradients projected to so many dimensions."""

from dataclasses import dataclass, field

import numpy as np
import polars as pl
from numpy.typing import NDArray

from gradsim.analysis.evaluation import Criterion, Evaluation
from gradsim.analysis.layer_dots import LayerDots
from gradsim.analysis.projections import observed_similarity
from gradsim.analysis.schema import Schema, column_types
from gradsim.analysis.selection.budget import evaluate_selection, select_within
from gradsim.analysis.selection.greedy import elimination_order
from gradsim.analysis.selection.halves import HeldOut, split_halves
from gradsim.analysis.selection.sizes import sizes_of
from gradsim.analysis.statistics import Bootstrap, exact_mcnemar, holm, percentile_interval

Floats = NDArray[np.float64]
Positions = NDArray[np.int64]

SELECT_OR_PROJECT: Schema = {
    "projection": (pl.String, "name of the projection"),
    "dimension": (pl.Int64, "its dimensions, and how many parameters the selected layers may have"),
    "criterion": (pl.String, "accuracy, or similarity to the full gradient: what layers are selected by"),
    "layers": (pl.Int32, "number of layers selected on all queries; halves may select others"),
    "parameters": (pl.Int64, "their parameters in all"),
    "selected_accuracy": (pl.Float64, "accuracy by layers selected on the half that a query is not in, mean of splits"),
    "projected_accuracy": (pl.Float64, "accuracy by the projected gradients"),
    "difference": (pl.Float64, "selected_accuracy less projected_accuracy"),
    "low": (pl.Float64, "lower end of its 95 % interval, a paired bootstrap over queries; not over splits"),
    "high": (pl.Float64, "the interval's upper end"),
    "only_selected": (pl.Int64, "queries that count more than a half more by the selected layers: in most splits"),
    "only_projected": (pl.Int64, "queries that count more than a half more by the projection"),
    "p": (pl.Float64, "exact McNemar test of the two counts"),
    "p_holm": (pl.Float64, "the same by Holm's correction for all rows of this table"),
    "selected_similarity": (pl.Float64, "similarity to the full gradient of layers selected on other halves, mean"),
    "projected_similarity": (pl.Float64, "the same of the projection on the same halves"),
    "similarity_difference": (pl.Float64, "selected_similarity less projected_similarity"),
    "similarity_low": (pl.Float64, "lower end of its 95 % interval, a paired bootstrap over queries; not over splits"),
    "similarity_high": (pl.Float64, "the interval's upper end"),
}


def select_or_project(
    layer_dots: LayerDots, parameters_per_layer: pl.DataFrame, projected: pl.DataFrame, *, seed: int
) -> pl.DataFrame:
    """Selections, judged on halves of the queries that they were not made on, beside every projection.

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
    n_queries = len(layer_dots.query_self_dots)
    if sizes is None or n_queries < 2:
        return pl.DataFrame(schema=column_types(SELECT_OR_PROJECT))
    names = projected.select("projection", "dimension").unique(maintain_order=True)
    projections = [
        _Projection(name, dimension, observed_similarity(projected, layer_dots, name, dimension))
        for name, dimension in names.iter_rows()
        if sizes.min() <= dimension
    ]
    contests = [_Contest(projection, criterion) for projection in projections for criterion in Criterion]
    for half in split_halves(n_queries, seed=seed) if contests else ():
        training, judged = layer_dots.of_queries(half.chosen_on), layer_dots.of_queries(half.judged_on)
        kept = {criterion: elimination_order(training, criterion) for criterion in Criterion}
        for contest in contests:
            chosen = contest.select(training, sizes, kept[contest.criterion])
            contest.selected.add(half, evaluate_selection(judged, chosen))
            observed = contest.projection.similarity[layer_dots.lists.pairs_of(half.judged_on)]
            contest.projected.add(half, Evaluation.of(judged.lists, observed[:, None], judged.similarity()))
    bootstrap = Bootstrap(n_queries, seed=seed)
    kept = {criterion: elimination_order(layer_dots, criterion) for criterion in Criterion} if contests else {}
    rows = [
        {**_selected(sizes, contest.select(layer_dots, sizes, kept[contest.criterion])), **contest.row(bootstrap)}
        for contest in contests
    ]
    table = pl.DataFrame(rows, schema=column_types(SELECT_OR_PROJECT))
    return table.with_columns(p_holm=pl.Series(holm(table["p"].to_numpy()), dtype=pl.Float64))


def _selected(sizes: Positions, chosen: Positions) -> dict[str, object]:
    return {"layers": len(chosen), "parameters": int(sizes[chosen].sum())}


@dataclass(frozen=True)
class _Projection:
    """A projection that was made.

    Attributes:
        name: of it.
        dimension: its dimensions.
        similarity: (pairs,) of the projected gradients.
    """

    name: str
    dimension: int
    similarity: Floats


@dataclass(frozen=True)
class _Contest:
    """A projection and selections by one criterion, of at most as many parameters; one column each."""

    projection: _Projection
    criterion: Criterion
    selected: HeldOut = field(default_factory=HeldOut)
    projected: HeldOut = field(default_factory=HeldOut)

    def select(self, layer_dots: LayerDots, sizes: Positions, kept: Positions) -> Positions:
        """The layers that these queries select."""
        return select_within(layer_dots, self.criterion, sizes, kept, self.projection.dimension)

    def row(self, bootstrap: Bootstrap) -> dict[str, object]:
        """Of the table, but for what was selected and Holm's correction."""
        more = (self.selected.credit - self.projected.credit)[:, 0]
        only_selected, only_projected = int((more > 1 / 2).sum()), int((more < -1 / 2).sum())
        selected, projected, low, high = self._compared(Criterion.ACCURACY, bootstrap)
        like_full, projected_like_full, similarity_low, similarity_high = self._compared(
            Criterion.SIMILARITY, bootstrap
        )
        return {
            "projection": self.projection.name,
            "dimension": self.projection.dimension,
            "criterion": str(self.criterion),
            "selected_accuracy": selected,
            "projected_accuracy": projected,
            "difference": selected - projected,
            "low": low,
            "high": high,
            "only_selected": only_selected,
            "only_projected": only_projected,
            "p": float(exact_mcnemar(only_selected, only_projected)),
            "selected_similarity": like_full,
            "projected_similarity": projected_like_full,
            "similarity_difference": like_full - projected_like_full,
            "similarity_low": similarity_low,
            "similarity_high": similarity_high,
        }

    def _compared(self, criterion: Criterion, bootstrap: Bootstrap) -> tuple[float, float, float, float]:
        """Both values, and the ends of their difference's interval."""
        selected, projected = (float(each.value(criterion)[0]) for each in (self.selected, self.projected))
        draws = self.selected.draws(criterion, bootstrap) - self.projected.draws(criterion, bootstrap)
        low, high = percentile_interval(draws[:, 0])
        return selected, projected, float(low), float(high)
