"""Recall at k and mean reciprocal rank of the true source in each query's candidate list."""

import numpy as np
import polars as pl

from gradsim.analysis.arrays import Floats
from gradsim.analysis.methods import Methods
from gradsim.analysis.schema import Column, Schema, column_types, interval
from gradsim.analysis.statistics import Bootstrap, wilson_interval

RECALL, RECIPROCAL_RANK = "recall", "mean_reciprocal_rank"

RETRIEVAL: Schema = {
    "method": Column(
        pl.String,
        "full_gradient, PROJECTION-DIMENSION, or bm25 (candidates in order of rank; a forced source is not found)",
    ),
    "group": Column(
        pl.String, "all: every query; ranked: BM25 listed the true source; forced: the true source was added by rule"
    ),
    "metric": Column(
        pl.String,
        "recall: share of queries with the true source among the k most similar candidates; mean_reciprocal_rank: "
        "mean of 1/rank, with rank 1 for the most similar candidate. Values are expectations with ties broken at "
        "random",
    ),
    "k": Column(pl.Int32, "number of candidates that recall considers; null for mean_reciprocal_rank"),
    "value": Column(pl.Float64, "value of the metric"),
    **interval("interval: Wilson for recall, bootstrap over queries for mean_reciprocal_rank"),
    "queries": Column(pl.Int64, "number of queries"),
}


def retrieval_metrics(
    similarity: pl.DataFrame,
    candidates: pl.DataFrame | None = None,
    projected: pl.DataFrame | None = None,
    *,
    seed: int,
) -> pl.DataFrame:
    """Compute recall at k and mean reciprocal rank of every method: the table `retrieval`.

    If forced sources are unknown, BM25 is credited with a forced source at its place in the list.

    Raises:
        TableError: the tables do not have the same pairs, a similarity is not finite, or a true source is missing.
    """
    methods = Methods.from_tables(similarity, candidates, projected)
    depths = _depths(int(methods.lists.lengths.max()))
    metrics = [*((RECALL, k) for k in depths), (RECIPROCAL_RANK, None)]
    recall, reciprocal = _expected(methods, depths)
    rows: dict[str, list[dict[str, object]]] = {name: [] for name in methods.names}
    for group, members in methods.groups().items():
        queries = int(members.sum())
        found = recall[:, members].sum(axis=1)
        found_low, found_high = wilson_interval(found, queries)
        mean_low, mean_high = Bootstrap(queries, seed=seed).mean_interval(reciprocal[members])
        value = np.vstack([found / queries, reciprocal[members].mean(axis=0)])
        low, high = np.vstack([found_low, mean_low]), np.vstack([found_high, mean_high])
        for column, name in enumerate(methods.names):
            rows[name] += [
                {
                    "method": name,
                    "group": group,
                    "metric": metric,
                    "k": k,
                    "value": float(value[row, column]),
                    "low": float(low[row, column]),
                    "high": float(high[row, column]),
                    "queries": queries,
                }
                for row, (metric, k) in enumerate(metrics)
            ]
    return pl.DataFrame([row for of_method in rows.values() for row in of_method], schema=column_types(RETRIEVAL))


def _depths(longest: int) -> list[int]:
    """Return the values of k (1, 2, 3, 5, 10, 20, 50, ...) below the length of the longest list; always includes 1."""
    powers = [10**exponent for exponent in range(len(str(longest)))]
    return [1, *sorted(k for k in {3, *(step * power for power in powers for step in (1, 2, 5))} if 1 < k < longest)]


def _expected(methods: Methods, depths: list[int]) -> tuple[Floats, Floats]:
    """Return the expected recall and reciprocal rank of every query, with ties broken at random.

    With `ahead` candidates scoring higher than the source and `tied` scoring the same, itself included, the source is
    equally likely to have any rank from ahead + 1 to ahead + tied.

    Returns:
        Recall at each depth, (depths, queries, methods), and reciprocal rank, (queries, methods).
    """
    lists, scores = methods.lists, methods.scores
    of_source = scores[lists.source][lists.query]
    ahead = np.add.reduceat(scores > of_source, lists.starts, axis=0, dtype=np.int64)
    tied = np.add.reduceat(scores == of_source, lists.starts, axis=0, dtype=np.int64)
    recall = np.stack([np.clip(k - ahead, 0, tied) / tied for k in depths])
    harmonic = np.concatenate([[0.0], np.cumsum(1 / np.arange(1, lists.lengths.max() + 1))])
    reciprocal = (harmonic[ahead + tied] - harmonic[ahead]) / tied
    listed = methods.listed()
    return recall * listed, reciprocal * listed
