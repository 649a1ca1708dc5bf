"""The candidate that each query chooses, and how often it is the true source."""

import numpy as np
import polars as pl

from gradsim.analysis.arrays import Floats, Positions
from gradsim.analysis.candidate_lists import CandidateLists
from gradsim.analysis.evaluation import in_parts
from gradsim.analysis.layer_dots import LayerDots
from gradsim.analysis.methods import BM25, Methods, sources_forced
from gradsim.analysis.schema import Column, Schema, column_types, interval
from gradsim.analysis.similarity import ordered_similarity
from gradsim.analysis.statistics import Bootstrap, exact_mcnemar, holm, percentile_interval, wilson_interval

SHARE: Schema = {
    "accuracy": Column(
        pl.Float64, "share of queries with the true source as best candidate; a tie of n candidates counts 1/n"
    ),
    "low": Column(pl.Float64, "lower end of the 95 % Wilson interval"),
    "high": Column(pl.Float64, "upper end of the 95 % Wilson interval"),
    "queries": Column(pl.Int64, "number of queries"),
    "tied": Column(pl.Int64, "number of queries with several candidates sharing the best similarity"),
}

ACCURACY: Schema = {
    "method": Column(
        pl.String, "full_gradient, PROJECTION-DIMENSION, or bm25 (correct if the source ranks first and was not forced)"
    ),
    "group": Column(
        pl.String, "all: every query; ranked: BM25 listed the true source; forced: the true source was added by rule"
    ),
    **SHARE,
}

ACCURACY_PER_LAYER: Schema = {
    "layer": Column(pl.String, "parameter tensor, in model order"),
    **SHARE,
    "only_layer": Column(pl.Int64, "number of queries with higher credit for the layer than for the full gradient"),
    "only_full": Column(pl.Int64, "number of queries with higher credit for the full gradient than for the layer"),
    "p": Column(pl.Float64, "two-sided p-value of the exact McNemar test of the layer against the full gradient"),
    "p_holm": Column(pl.Float64, "p with Holm's correction over all layers"),
}

BEST_SIMILARITY: Schema = {
    "method": Column(pl.String, "full_gradient or PROJECTION-DIMENSION"),
    "candidate": Column(pl.String, "best: each query's most similar candidate; source: its true source"),
    "mean": Column(pl.Float64, "mean over queries of the similarity of that candidate"),
    **interval("interval, from a bootstrap over queries", "mean_low", "mean_high"),
    "median": Column(pl.Float64, "median over queries of the similarity of that candidate"),
    **interval("interval, from a bootstrap over queries", "median_low", "median_high"),
}

DECISIONS: Schema = {
    "query_id": Column(pl.String, "the query; its id is the id of its true source"),
    "chosen_id": Column(pl.String, "most similar candidate, the first one if tied"),
    "best_other_id": Column(pl.String, "most similar candidate other than the source; null if there is none"),
    "source_similarity": Column(pl.Float64, "similarity of the true source"),
    "best_other_similarity": Column(pl.Float64, "similarity of the best other candidate"),
    "margin": Column(pl.Float64, "source_similarity minus best_other_similarity; negative if the choice is wrong"),
    "credit": Column(
        pl.Float64, "1 if the choice is right, 0 if it is wrong, 1/n if the source is tied among the n best"
    ),
    "source_rank": Column(pl.Int32, "rank of the true source in the candidate list, from 0"),
    "forced": Column(pl.Boolean, "whether the true source was added by rule; null if unknown"),
}


def accuracy(
    similarity: pl.DataFrame, candidates: pl.DataFrame | None = None, projected: pl.DataFrame | None = None
) -> pl.DataFrame:
    """Compute the accuracy of the full gradient, each projection and BM25, also split by forced sources.

    Groups `ranked` and `forced` are left out if they are empty or forced sources are unknown.

    Raises:
        TableError: the tables do not have the same pairs, a similarity is not finite, or a true source is missing.
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
    """Compute the accuracy of each layer alone and test it against the full gradient, in model order."""
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
    """Compute the mean and median over queries of the similarity of the best candidate and of the true source.

    Raises:
        TableError: the tables do not have the same pairs, or a similarity is not finite.
    """
    methods = Methods.from_tables(similarity, projected=projected)
    names = [name for name in methods.names if name != BM25]
    lists, scores = methods.lists, methods.scores[:, : len(names)]
    # Two columns per method.
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
    """Return one row per query: its chosen candidate, its true source, and the margin of the source.

    Args:
        similarity: the table `gradient_similarity`, or the rows of one projection.
        candidates: the table `candidates`; if None, forced sources are unknown.

    Raises:
        TableError: a similarity is not finite, or a true source is missing.
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


def _first_best(lists: CandidateLists, scores: Floats) -> Positions:
    """Return the index of each query's first best pair, (n_queries,)."""
    is_best = np.flatnonzero(scores == lists.best(scores)[lists.query])
    _, first = np.unique(lists.query[is_best], return_index=True)
    return is_best[first]
