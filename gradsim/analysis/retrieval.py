"""Which candidate each query chooses, and how often it is the true source."""

import numpy as np
import polars as pl
from numpy.typing import NDArray

from gradsim.analysis.candidate_lists import CandidateLists
from gradsim.analysis.layer_dots import LayerDots
from gradsim.analysis.layer_evaluation import in_parts
from gradsim.analysis.methods import BM25, Methods, sources_forced
from gradsim.analysis.schema import Schema, column_types
from gradsim.analysis.similarity import ordered_similarity
from gradsim.analysis.statistics import Bootstrap, exact_mcnemar, holm, percentile_interval, wilson_interval

Floats = NDArray[np.float64]

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
    "only_layer": (pl.Int64, "queries that count more by the layer than by the full gradient"),
    "only_full": (pl.Int64, "queries that count more by the full gradient"),
    "p": (pl.Float64, "two-sided p-value of the exact McNemar test of the layer against the full gradient"),
    "p_holm": (pl.Float64, "the same by Holm's correction for all layers"),
}

BEST_SIMILARITY: Schema = {
    "method": (pl.String, "full_gradient or PROJECTION-DIMENSION"),
    "candidate": (pl.String, "best: each query's most similar candidate; source: its true source"),
    "mean": (pl.Float64, "mean over queries of that candidate's similarity"),
    "mean_low": (pl.Float64, "lower end of its 95 % interval, a bootstrap over queries"),
    "mean_high": (pl.Float64, "the interval's upper end"),
    "median": (pl.Float64, "median over queries of that candidate's similarity"),
    "median_low": (pl.Float64, "lower end of its 95 % interval, a bootstrap over queries"),
    "median_high": (pl.Float64, "the interval's upper end"),
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
        TableError: tables that do not have the same pairs, or similarities that are not finite.
    """
    methods = Methods.from_tables(similarity, candidates, projected)
    credit, tied = methods.credit(), methods.lists.number_of_best(methods.scores) > 1
    rows = [
        {
            "method": name,
            "group": group,
            "accuracy": float(credit[members, column].mean()),
            "low": float(low),
            "high": float(high),
            "queries": int(members.sum()),
            "tied": int(tied[members, column].sum()),
        }
        for column, name in enumerate(methods.names)
        for group, members in methods.groups().items()
        for low, high in [wilson_interval(credit[members, column].sum(), members.sum())]
    ]
    return pl.DataFrame(rows, schema=column_types(ACCURACY))


def accuracy_per_layer(layer_dots: LayerDots) -> pl.DataFrame:
    """Accuracy of each layer's gradient alone, beside the full gradient's, in model order."""
    credit, tied = np.empty(layer_dots.query_self_dots.shape), np.zeros(len(layer_dots.layers), dtype=np.int64)
    for queries, part in in_parts(layer_dots):
        similarities = part.layer_similarities()
        credit[queries] = part.lists.credit(similarities)
        tied += (part.lists.number_of_best(similarities) > 1).sum(axis=0)
    low, high = wilson_interval(credit.sum(axis=0), len(credit))
    of_full = layer_dots.lists.credit(layer_dots.similarity())[:, None]
    only_layer, only_full = (credit > of_full).sum(axis=0), (credit < of_full).sum(axis=0)
    p = exact_mcnemar(only_layer, only_full)
    return pl.DataFrame(
        {
            "layer": layer_dots.layers,
            "accuracy": credit.mean(axis=0),
            "low": low,
            "high": high,
            "queries": np.full(len(low), len(credit)),
            "tied": tied,
            "only_layer": only_layer,
            "only_full": only_full,
            "p": p,
            "p_holm": holm(p),
        }
    )


def best_similarity(similarity: pl.DataFrame, projected: pl.DataFrame | None = None, *, seed: int) -> pl.DataFrame:
    """Mean and median over queries of the best candidate's similarity and of the true source's.

    Args:
        similarity: the table `gradient_similarity`.
        projected: the table `projected_similarity`.
        seed: of the bootstrap.

    Raises:
        TableError: tables that do not have the same pairs, or similarities that are not finite.
    """
    methods = Methods.from_tables(similarity, projected=projected)
    names = [name for name in methods.names if name != BM25]
    lists, scores = methods.lists, methods.scores[:, : len(names)]
    # Two columns a method.
    columns = np.stack([lists.best(scores), scores[lists.source]], axis=2).reshape(-1, 2 * len(names))
    bootstrap = Bootstrap(len(columns), seed=seed)
    mean_low, mean_high = bootstrap.mean_interval(columns)
    median_low, median_high = percentile_interval(bootstrap.medians(columns))
    return pl.DataFrame(
        {
            "method": [name for name in names for _ in range(2)],
            "candidate": ["best", "source"] * len(names),
            "mean": columns.mean(axis=0),
            "mean_low": mean_low,
            "mean_high": mean_high,
            "median": np.median(columns, axis=0),
            "median_low": median_low,
            "median_high": median_high,
        }
    )


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
            "forced": sources_forced(lists.query_ids, candidates),
        }
    ).with_columns(pl.when(has_other).then(pl.col("best_other_id", "best_other_similarity", "margin")))


def _first_best(lists: CandidateLists, scores: Floats) -> NDArray[np.int64]:
    """Position of each query's first best pair, (n_queries,)."""
    is_best = np.flatnonzero(scores == lists.best(scores)[lists.query])
    _, first = np.unique(lists.query[is_best], return_index=True)
    return is_best[first]
