"""Select or project: selections of layers compared with projected gradients of the same dimension."""

from dataclasses import dataclass, field

import polars as pl

from gradsim.analysis.arrays import Floats, Positions
from gradsim.analysis.evaluation import Criterion, Evaluation
from gradsim.analysis.layer_dots import LayerDots
from gradsim.analysis.layers import sizes_of
from gradsim.analysis.projections import observed_similarity
from gradsim.analysis.schema import Column, Schema, column_types, interval
from gradsim.analysis.selection.budget import evaluate_selection, select_within
from gradsim.analysis.selection.greedy import elimination_order
from gradsim.analysis.selection.halves import HeldOut, split_halves
from gradsim.analysis.statistics import Bootstrap, exact_mcnemar, holm, percentile_interval

SELECT_OR_PROJECT: Schema = {
    "projection": Column(pl.String, "name of the projection"),
    "dimension": Column(pl.Int64, "dimension of the projection, and parameter budget of the selection"),
    "criterion": Column(pl.String, "selection criterion: accuracy, or similarity to the full gradient"),
    "layers": Column(pl.Int32, "number of layers selected on all queries; selections on halves may differ"),
    "parameters": Column(pl.Int64, "total number of their parameters"),
    "selected_accuracy": Column(
        pl.Float64, "accuracy on held-out queries of layers selected on the other half, averaged over splits"
    ),
    "projected_accuracy": Column(pl.Float64, "accuracy of the projected gradients"),
    "difference": Column(pl.Float64, "selected_accuracy minus projected_accuracy"),
    **interval("interval, from a paired bootstrap over queries, not over splits"),
    "only_selected": Column(
        pl.Int64, "number of queries with mean credit higher by more than 1/2 for the selected layers"
    ),
    "only_projected": Column(pl.Int64, "number of queries with mean credit higher by more than 1/2 for the projection"),
    "p": Column(pl.Float64, "two-sided p-value of the exact McNemar test on the two counts"),
    "p_holm": Column(pl.Float64, "p with Holm's correction over all rows of this table"),
    "selected_similarity": Column(
        pl.Float64,
        "similarity to the full gradient of layers selected on the other half, averaged over held-out halves",
    ),
    "projected_similarity": Column(
        pl.Float64, "similarity to the full gradient of the projection, averaged over the same halves"
    ),
    "similarity_difference": Column(pl.Float64, "selected_similarity minus projected_similarity"),
    **interval("interval, from a paired bootstrap over queries, not over splits", "similarity_low", "similarity_high"),
}


def select_or_project(
    layer_dots: LayerDots, parameters_per_layer: pl.DataFrame, projected: pl.DataFrame, *, seed: int
) -> pl.DataFrame:
    """Compare layer selections with every projection on held-out halves of the queries.

    There are no rows if nothing was projected, layer sizes are unknown, no layer fits, or there are fewer than two
    queries.

    Raises:
        TableError: `projected` does not have the same pairs as `layer_dots`, or a layer is not in
            `parameters_per_layer`.
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
        {"layers": len(chosen), "parameters": int(sizes[chosen].sum()), **contest.row(bootstrap)}
        for contest in contests
        for chosen in [contest.select(layer_dots, sizes, kept[contest.criterion])]
    ]
    table = pl.DataFrame(rows, schema=column_types(SELECT_OR_PROJECT))
    return table.with_columns(p_holm=pl.Series(holm(table["p"].to_numpy()), dtype=pl.Float64))


@dataclass(frozen=True)
class _Projection:
    """Stored projection.

    Attributes:
        name: name of the projection.
        dimension: dimension of the projected gradients.
        similarity: similarity of each pair's projected gradients, (pairs,).
    """

    name: str
    dimension: int
    similarity: Floats


@dataclass(frozen=True)
class _Contest:
    """Comparison of a projection with selections by one criterion of at most as many parameters; one column each."""

    projection: _Projection
    criterion: Criterion
    selected: HeldOut = field(default_factory=HeldOut)
    projected: HeldOut = field(default_factory=HeldOut)

    def select(self, layer_dots: LayerDots, sizes: Positions, kept: Positions) -> Positions:
        """Return the layers that the queries of `layer_dots` select."""
        return select_within(layer_dots, self.criterion, sizes, kept, self.projection.dimension)

    def row(self, bootstrap: Bootstrap) -> dict[str, object]:
        """Return the table row, without the selection's size and Holm's correction."""
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
        """Return both values and the lower and upper end of the 95 % interval of their difference."""
        selected, projected = (float(each.value(criterion)[0]) for each in (self.selected, self.projected))
        draws = self.selected.draws(criterion, bootstrap) - self.projected.draws(criterion, bootstrap)
        low, high = percentile_interval(draws[:, 0])
        return selected, projected, float(low), float(high)
