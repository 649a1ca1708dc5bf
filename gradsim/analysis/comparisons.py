"""Paired comparisons of methods, and of layers, by the number of sources that they find."""

import numpy as np
import polars as pl
from numpy.typing import NDArray

from gradsim.analysis.arrays import Floats, Positions
from gradsim.analysis.evaluation import evaluate_layers
from gradsim.analysis.layer_dots import LayerDots
from gradsim.analysis.methods import Methods
from gradsim.analysis.schema import Column, Schema, interval
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
