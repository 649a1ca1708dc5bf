"""Paired comparisons of methods, and of layers, by the number of sources that they find."""

import numpy as np
import polars as pl
from numpy.typing import NDArray

from gradsim.analysis.arrays import Floats, Positions
from gradsim.analysis.controls import ANSWER_LENGTH, answer_length_scores
from gradsim.analysis.evaluation import evaluate_layers
from gradsim.analysis.layer_dots import LayerDots
from gradsim.analysis.methods import Methods
from gradsim.analysis.schema import Column, Schema, interval
from gradsim.analysis.similarity import ordered_similarity
from gradsim.analysis.statistics import Bootstrap, exact_mcnemar, holm, percentile_interval

METHOD_DIFFERENCES: Schema = {
    "method": Column(
        pl.String, "full_gradient, PROJECTION-DIMENSION, or bm25 (correct if the source ranks first and was not forced)"
    ),
    "other": Column(pl.String, "the method that it is compared with"),
    "difference": Column(pl.Float64, "accuracy of the method minus accuracy of the other, over all queries"),
    **interval("interval, from a paired bootstrap over queries"),
    "only_method": Column(pl.Int64, "number of queries with higher credit for the method than for the other"),
    "only_other": Column(pl.Int64, "number of queries with higher credit for the other method"),
    "p": Column(pl.Float64, "two-sided p-value of the exact McNemar test"),
    "p_holm": Column(pl.Float64, "p with Holm's correction over all rows of this table"),
}

BASELINE_DIFFERENCES: Schema = {
    "baseline": Column(
        pl.String,
        "bm25: correct if the source ranks first and was not forced; answer_length: chooses the candidate with the "
        "nearest answer length",
    ),
    "accuracy": Column(pl.Float64, "accuracy of the baseline over all queries"),
    "difference": Column(pl.Float64, "accuracy of the full gradient minus accuracy of the baseline"),
    **interval("interval, from a paired bootstrap over queries"),
    "only_full": Column(pl.Int64, "number of queries with higher credit for the full gradient than for the baseline"),
    "only_baseline": Column(pl.Int64, "number of queries with higher credit for the baseline"),
    "p": Column(pl.Float64, "two-sided p-value of the exact McNemar test"),
    "p_holm": Column(pl.Float64, "p with Holm's correction over all baselines"),
}

LAYER_DIFFERENCES: Schema = {
    "layer": Column(pl.String, "parameter tensor, in model order"),
    "other_layer": Column(pl.String, "a later layer in model order; every pair of layers is listed once"),
    "difference": Column(pl.Float64, "accuracy of the layer alone minus accuracy of the other alone"),
    "only_layer": Column(pl.Int64, "number of queries with higher credit for the layer than for the other"),
    "only_other": Column(pl.Int64, "number of queries with higher credit for the other layer"),
    "p": Column(pl.Float64, "two-sided p-value of the exact McNemar test"),
    "p_holm": Column(pl.Float64, "p with Holm's correction over all rows of this table"),
}


def method_differences(
    similarity: pl.DataFrame,
    candidates: pl.DataFrame | None = None,
    projected: pl.DataFrame | None = None,
    *,
    seed: int,
) -> pl.DataFrame:
    """Compare every pair of methods once, over all queries.

    Each query contributes its credit, which is less than 1 if its source is tied for best.

    Raises:
        TableError: the tables do not have the same pairs, a similarity is not finite, or a true source is missing.
    """
    methods = Methods.from_tables(similarity, candidates, projected)
    credit = methods.credit()
    first, second = np.triu_indices(len(methods.names), 1)
    draws = Bootstrap(len(credit), seed=seed).totals(credit) / len(credit)
    low, high = percentile_interval(draws[:, first] - draws[:, second])
    names = pl.Series(methods.names)
    return (
        pl.DataFrame(
            {
                "method": names.gather(first),
                "other": names.gather(second),
                **_tested(credit, first, second, ("only_method", "only_other")),
            }
        )
        .with_columns(low=pl.Series(low), high=pl.Series(high))
        .select(METHOD_DIFFERENCES.keys())
    )


def baseline_differences(
    similarity: pl.DataFrame,
    candidates: pl.DataFrame | None = None,
    answer_lengths: pl.DataFrame | None = None,
    query_answer_lengths: pl.DataFrame | None = None,
    *,
    seed: int,
) -> pl.DataFrame:
    """Compare the full gradient with what needs no gradients: BM25, and the nearest answer length.

    Each query contributes its credit, 1/n if its source is tied among the n best. The interval of the difference is
    that of a paired bootstrap, see `Bootstrap`. The test counts the queries to which one of the two gives more credit,
    whatever the difference: W. J. Dixon and A. M. Mood, "The statistical sign test", Journal of the American
    Statistical Association 41 (1946), 557-566. Without ties, that is the exact McNemar test, see `exact_mcnemar`.

    Args:
        similarity: the table `gradient_similarity`.
        candidates: the table `candidates`; None if unknown.
        answer_lengths: `id` and `length` of the originals, as returned by `answer_lengths`; None leaves out the answer
            length.
        query_answer_lengths: `id` and `length` of the queries, in the same units.
        seed: seed of the bootstrap.

    Raises:
        TableError: a similarity is not finite, a true source is missing, or a sample has no length.
    """
    methods = Methods.from_tables(similarity, candidates)
    columns = {name: methods.credit()[:, place] for place, name in enumerate(methods.names)}
    if answer_lengths is not None and query_answer_lengths is not None:
        pairs = ordered_similarity(similarity, "gradient_similarity")
        scores = answer_length_scores(pairs, answer_lengths, query_answer_lengths)
        columns[ANSWER_LENGTH] = methods.lists.credit(scores)
    credit = np.stack(list(columns.values()), axis=1)
    baselines = np.arange(1, credit.shape[1])
    full = np.zeros_like(baselines)
    low, high = Bootstrap(len(credit), seed=seed).mean_interval(credit[:, :1] - credit[:, 1:])
    return pl.DataFrame(
        {
            "baseline": list(columns)[1:],
            "accuracy": credit[:, 1:].mean(axis=0),
            **_tested(credit, full, baselines, ("only_full", "only_baseline")),
            "low": low,
            "high": high,
        }
    ).select(BASELINE_DIFFERENCES.keys())


def layer_differences(layer_dots: LayerDots) -> pl.DataFrame:
    """Compare every pair of layers once, in model order; no rows if there is only one layer."""
    credit = evaluate_layers(layer_dots).credit
    first, second = np.triu_indices(len(layer_dots.layers), 1)
    return pl.DataFrame(
        {
            "layer": layer_dots.layers.gather(first),
            "other_layer": layer_dots.layers.gather(second),
            **_tested(credit, first, second, ("only_layer", "only_other")),
        }
    )


def _tested(
    credit: Floats, first: Positions, second: Positions, counts: tuple[str, str]
) -> dict[str, NDArray[np.generic]]:
    """Return accuracy differences of pairs of columns, with McNemar tests of the queries that differ."""
    accuracy, more = credit.mean(axis=0), _counts_more(credit)
    only_first, only_second = more[first, second], more[second, first]
    p = exact_mcnemar(only_first, only_second)
    return {
        "difference": accuracy[first] - accuracy[second],
        counts[0]: only_first,
        counts[1]: only_second,
        "p": p,
        "p_holm": holm(p),
    }


def _counts_more(credit: Floats) -> Positions:
    """Return how many queries each column gives more credit than each other column, (columns, columns).

    Args:
        credit: (queries, columns).
    """
    more = np.zeros((credit.shape[1], credit.shape[1]))
    for level in np.unique(credit[credit > 0]):
        more += (credit == level).T.astype(np.float64) @ (credit < level).astype(np.float64)
    return more.astype(np.int64)
