"""Which candidate each query chooses, and how often it is the true source."""

import numpy as np
import polars as pl
from numpy.typing import NDArray

from gradsim.analysis.candidate_lists import CandidateLists
from gradsim.analysis.layer_dots import LayerDots
from gradsim.analysis.schema import Schema, column_types
from gradsim.analysis.similarity import ordered_similarity, similarities_by_method
from gradsim.analysis.statistics import wilson_interval
from gradsim.errors import TableError

Floats = NDArray[np.float64]

BM25 = "bm25"

SHARE: Schema = {
    "accuracy": (
        pl.Float64,
        "share of queries whose best candidate is the true source; a tie of n counts 1/n",
    ),
    "low": (pl.Float64, "lower end of Wilson's 95 % interval"),
    "high": (pl.Float64, "upper end of Wilson's 95 % interval"),
    "queries": (pl.Int64, "number of queries"),
    "tied": (pl.Int64, "queries whose best similarity is shared by several candidates"),
}

ACCURACY: Schema = {
    "method": (
        pl.String,
        "full_gradient, PROJECTION-DIMENSION, or bm25 (the source ranks first, not forced)",
    ),
    "group": (
        pl.String,
        "all queries; ranked or forced: BM25 listed the true source, or the rule put it in",
    ),
    **SHARE,
}

ACCURACY_PER_LAYER: Schema = {
    "layer": (pl.String, "parameter tensor, in model order"),
    **SHARE,
}

BEST_SIMILARITY: Schema = {
    "method": (pl.String, "full_gradient or PROJECTION-DIMENSION"),
    "mean": (pl.Float64, "mean over queries of the best candidate's similarity"),
    "median": (pl.Float64, "median over queries of the best candidate's similarity"),
    "source_mean": (pl.Float64, "mean over queries of the true source's similarity"),
    "source_median": (pl.Float64, "median over queries of the true source's similarity"),
}

DECISIONS: Schema = {
    "query_id": (pl.String, "the query, whose id is that of its true source"),
    "chosen_id": (pl.String, "most similar candidate, the first of them if tied"),
    "best_other_id": (
        pl.String,
        "most similar candidate that is not the source; null if there is none",
    ),
    "source_similarity": (pl.Float64, "similarity of the true source"),
    "best_other_similarity": (pl.Float64, "similarity of the best other candidate"),
    "margin": (
        pl.Float64,
        "source_similarity less best_other_similarity; negative where the choice is wrong",
    ),
    "credit": (
        pl.Float64,
        "what the query counts: 1 right, 0 wrong, 1/n tied with the source among n best",
    ),
    "source_rank": (pl.Int32, "place of the true source in the candidate list, 0 first"),
    "forced": (pl.Boolean, "the true source was put in by rule; null if unknown"),
}


def accuracy(
    similarity: pl.DataFrame,
    candidates: pl.DataFrame | None = None,
    projected: pl.DataFrame | None = None,
) -> pl.DataFrame:
    """Accuracy of the full gradient, each projection and BM25, apart for forced queries.

    Groups `ranked` and `forced` are left out where they are empty or it is unknown who was forced.

    Args:
        similarity: the table `gradient_similarity`.
        candidates: the table `candidates`; None, or `forced` null: unknown who was forced.
        projected: the table `projected_similarity`.

    Raises:
        TableError: tables that do not fit together, or similarities that are not finite.
    """
    methods = similarities_by_method(similarity, projected)
    rows: list[dict[str, object]] = []
    for name, pairs in methods.items():
        lists = CandidateLists.from_pairs(pairs)
        scores = pairs["similarity"].to_numpy()
        groups = _groups(_forced(lists.query_ids, candidates))
        credit, tied = lists.credit(scores), lists.number_of_best(scores) > 1
        rows += _shares(name, groups, credit, tied)

    pairs = next(iter(methods.values()))
    lists = CandidateLists.from_pairs(pairs)
    forced = _forced(lists.query_ids, candidates)
    first = (lists.source == lists.starts) & ~forced.fill_null(False).to_numpy()
    rows += _shares(BM25, _groups(forced), first.astype(np.float64), np.zeros_like(first))
    return pl.DataFrame(rows, schema=column_types(ACCURACY))


def accuracy_per_layer(layer_dots: LayerDots) -> pl.DataFrame:
    """Accuracy of each layer's gradient alone, in model order."""
    similarities = layer_dots.layer_similarities()
    credit = layer_dots.lists.credit(similarities)
    tied = layer_dots.lists.number_of_best(similarities) > 1
    low, high = wilson_interval(credit.sum(axis=0), len(credit))
    return pl.DataFrame(
        {
            "layer": layer_dots.layers,
            "accuracy": credit.mean(axis=0),
            "low": low,
            "high": high,
            "queries": np.full(len(low), len(credit)),
            "tied": tied.sum(axis=0),
        }
    )


def best_similarity(similarity: pl.DataFrame, projected: pl.DataFrame | None = None) -> pl.DataFrame:
    """Mean and median over queries of the best candidate's similarity and of the true source's.

    Args:
        similarity: the table `gradient_similarity`.
        projected: the table `projected_similarity`.
    """
    rows = []
    for name, pairs in similarities_by_method(similarity, projected).items():
        lists = CandidateLists.from_pairs(pairs)
        scores = pairs["similarity"].to_numpy()
        best, source = lists.best(scores), scores[lists.source]
        rows.append((name, np.mean(best), np.median(best), np.mean(source), np.median(source)))
    return pl.DataFrame(rows, schema=column_types(BEST_SIMILARITY), orient="row")


def decisions(similarity: pl.DataFrame, candidates: pl.DataFrame | None = None) -> pl.DataFrame:
    """One row a query: the candidate that it chooses, the source, and by how much it won.

    Args:
        similarity: the table `gradient_similarity`, or the rows of one projection.
        candidates: the table `candidates`; None: unknown who was forced.
    """
    pairs = ordered_similarity(similarity, "gradient_similarity")
    lists = CandidateLists.from_pairs(pairs)
    scores = pairs["similarity"].to_numpy()
    source_scores = scores[lists.source]

    other_scores = scores.copy()
    other_scores[lists.source] = -np.inf
    has_other = pl.Series(lists.lengths > 1)
    other = _first_best(lists, other_scores)
    return pl.DataFrame(
        {
            "query_id": lists.query_ids,
            "chosen_id": pairs["original_id"][_first_best(lists, scores)],
            "best_other_id": pairs["original_id"][other],
            "source_similarity": source_scores,
            "best_other_similarity": scores[other],
            "margin": source_scores - scores[other],
            "credit": lists.credit(scores),
            "source_rank": pairs["rank"][lists.source].cast(pl.Int32),
            "forced": _forced(lists.query_ids, candidates),
        }
    ).with_columns(pl.when(has_other).then(pl.col("best_other_id", "best_other_similarity", "margin")))


def _first_best(lists: CandidateLists, scores: Floats) -> NDArray[np.int64]:
    """Position of each query's first best pair, (n_queries,)."""
    is_best = np.flatnonzero(scores == lists.best(scores)[lists.query])
    _, first = np.unique(lists.query[is_best], return_index=True)
    return is_best[first]


def _forced(query_ids: pl.Series, candidates: pl.DataFrame | None) -> pl.Series:
    """Whether the true source of each query was put in by rule; null where unknown."""
    if candidates is None:
        return pl.Series("forced", [None] * len(query_ids), dtype=pl.Boolean)
    sources = candidates.select(
        pl.col("query_id", "original_id").cast(pl.String), pl.col("forced").cast(pl.Boolean)
    ).filter(pl.col("query_id") == pl.col("original_id"))
    known = dict(sources.select("query_id", "forced").iter_rows())
    ids = query_ids.cast(pl.String).to_list()
    for query_id in ids:
        if query_id not in known:
            raise TableError(f"candidates has no row of query {query_id!r} and its true source")
    return pl.Series("forced", [known[query_id] for query_id in ids], dtype=pl.Boolean)


def _groups(forced: pl.Series) -> dict[str, NDArray[np.bool_]]:
    groups = {
        "all": np.ones(len(forced), dtype=np.bool_),
        "ranked": (~forced).fill_null(False).to_numpy(),
        "forced": forced.fill_null(False).to_numpy(),
    }
    return {name: members for name, members in groups.items() if members.any()}


def _shares(
    method: str, groups: dict[str, NDArray[np.bool_]], credit: Floats, tied: NDArray[np.bool_]
) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    for group, members in groups.items():
        low, high = wilson_interval(credit[members].sum(), members.sum())
        rows.append(
            {
                "method": method,
                "group": group,
                "accuracy": float(credit[members].mean()),
                "low": float(low),
                "high": float(high),
                "queries": int(members.sum()),
                "tied": int(tied[members].sum()),
            }
        )
    return rows
