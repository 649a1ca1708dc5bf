"""Confidence intervals and significance tests for proportions and means over queries."""

from collections.abc import Iterator
from functools import cached_property
from statistics import NormalDist

import numpy as np
import scipy
from numpy.typing import ArrayLike, NDArray

from gradsim.analysis.arrays import Floats, Positions

Z_95 = NormalDist().inv_cdf(0.975)

SIGNIFICANT = 0.05
"""Significance level for p-values after Holm's correction."""

RESAMPLES = 1000

# Number of weights to draw at a time, sized to fit in the CPU cache.
_WEIGHTS_AT_ONCE = 1 << 20

# Maximum number of weights to cache, at two bytes each.
_COUNTS_KEPT = 1 << 25


def wilson_interval(successes: ArrayLike, trials: ArrayLike) -> tuple[Floats, Floats]:
    """Return the lower and upper end of the 95 % Wilson score interval, without continuity correction.

    Successes may be fractional: a query with n candidates sharing the best similarity counts 1/n. Source: E. B. Wilson,
    "Probable inference, the law of succession, and statistical inference", Journal of the American Statistical
    Association 22 (1927), 209-212.

    Args:
        successes: number of successes, between 0 and `trials`, any shape.
        trials: number of trials, at least 1, broadcast against `successes`.

    Raises:
        ValueError: `trials` is less than 1, or `successes` is not between 0 and `trials`.
    """
    successes, trials = np.broadcast_arrays(
        np.asarray(successes, dtype=np.float64), np.asarray(trials, dtype=np.float64)
    )
    if np.any(trials < 1) or np.any(successes < 0) or np.any(successes > trials):
        raise ValueError("a Wilson interval requires at least one trial and 0 <= successes <= trials")
    share = successes / trials
    widening = Z_95**2 / trials
    centre = (share + widening / 2) / (1 + widening)
    half_width = np.sqrt(share * (1 - share) * widening + widening**2 / 4) / (1 + widening)
    # The ends are exactly 0 and 1 here; rounding would miss them.
    low = np.where(successes == 0, 0.0, centre - half_width)
    high = np.where(successes == trials, 1.0, centre + half_width)
    return low, high


class Bootstrap:
    """Bootstrap resamples of a study's queries, drawn with replacement.

    Each resample has as many queries as the study. The same seed always draws the same queries, so values resampled
    with one seed are paired: draws of a difference are differences of draws. Intervals are percentile intervals.
    Source: B. Efron, "Bootstrap methods: another look at the jackknife", The Annals of Statistics 7 (1979), 1-26.
    """

    def __init__(self, n_queries: int, *, seed: int, resamples: int = RESAMPLES) -> None:
        self.n_queries = n_queries
        self.resamples = resamples
        self._seed = seed

    def totals(self, per_query: Floats, queries: Positions | None = None) -> Floats:
        """Return the sums over the queries of each resample, (resamples, ...).

        Values are rounded to about 12 digits so that their sums are exact: the result is the same bit by bit, in
        whatever order threads add.

        Args:
            per_query: values of all queries, or of `queries` only, (n_queries, ...).
            queries: indices of the queries in `per_query`; None for all. Other queries contribute nothing.
        """
        columns = _exactly_addable(per_query.reshape(len(per_query), -1), self.n_queries)
        chosen = slice(None) if queries is None else queries
        totals = np.concatenate([weights[:, chosen] @ columns for weights in self.weights()])
        return totals.reshape(self.resamples, *per_query.shape[1:])

    def medians(self, per_query: Floats) -> Floats:
        """Return the median over the queries of each resample, (resamples, columns), from (n_queries, columns)."""
        return np.concatenate(
            [np.stack([_medians(column, weights) for column in per_query.T], axis=1) for weights in self.weights()]
        )

    def mean_interval(self, per_query: Floats) -> tuple[Floats, Floats]:
        """Return the lower and upper end of the mean's 95 % interval, (...), from (n_queries, ...)."""
        return percentile_interval(self.totals(per_query) / self.n_queries)

    def weights(self) -> Iterator[Floats]:
        """Yield how often each query is drawn, as (resamples, n_queries) arrays of a few resamples at a time."""
        for counts in self._counts if self.resamples * self.n_queries <= _COUNTS_KEPT else self._draw():
            yield counts.astype(np.float64)

    @cached_property
    def _counts(self) -> list[NDArray[np.uint16]]:
        """Counts of all resamples, cached because small studies are resampled often."""
        return list(self._draw())

    def _draw(self) -> Iterator[NDArray[np.uint16]]:
        random = np.random.default_rng(self._seed)
        at_once = max(1, _WEIGHTS_AT_ONCE // self.n_queries)
        for start in range(0, self.resamples, at_once):
            rows = min(at_once, self.resamples - start)
            drawn = random.integers(self.n_queries, size=(rows, self.n_queries))
            drawn += np.arange(rows)[:, None] * self.n_queries
            counts = np.bincount(drawn.ravel(), minlength=rows * self.n_queries)
            yield counts.reshape(rows, self.n_queries).astype(np.uint16)


def _exactly_addable(values: Floats, terms: int) -> Floats:
    """Round values to multiples of a power of two, so that any sum of `terms` of them is exact.

    A value may occur in the sum several times.
    """
    largest = float(np.abs(values).max(initial=0.0))
    if largest == 0:
        return values
    unit = 2.0 ** (np.ceil(np.log2(largest * terms)) - 52)
    return np.asarray(np.round(values / unit) * unit)


def _medians(values: Floats, weights: Floats) -> Floats:
    """Return weighted medians, one per bootstrap resample, (resamples,).

    Args:
        values: (n,).
        weights: number of times that each value is drawn, (resamples, n); each row sums to n.
    """
    n = len(values)
    ascending = np.argsort(values, kind="stable")
    reached = np.cumsum(weights[:, ascending], axis=1)
    lower, upper = (np.argmax(reached > middle, axis=1) for middle in ((n - 1) // 2, n // 2))
    medians: Floats = (values[ascending][lower] + values[ascending][upper]) / 2
    return medians


def percentile_interval(draws: Floats) -> tuple[Floats, Floats]:
    """Return the 95 % percentile interval, (...), of resampled values, (resamples, ...)."""
    low, high = np.quantile(draws, [0.025, 0.975], axis=0)
    return low, high


def exact_mcnemar(only_first: ArrayLike, only_second: ArrayLike) -> Floats:
    """Return two-sided p-values of the exact McNemar test.

    Under the null hypothesis, a query that only one of two methods finds is equally likely to be found by either. The
    p-value is 1 if there is no such query. Source: Q. McNemar, "Note on the sampling error of the difference between
    correlated proportions or percentages", Psychometrika 12 (1947), 153-157.

    Args:
        only_first: number of queries that only the first method finds, any shape.
        only_second: number of queries that only the second method finds, same shape.
    """
    first, second = np.asarray(only_first), np.asarray(only_second)
    p_values: Floats = np.minimum(1.0, 2 * scipy.special.bdtr(np.minimum(first, second), first + second, 0.5))
    return p_values


def holm(p_values: Floats) -> Floats:
    """Return p-values with Holm's correction, which controls the family-wise error rate.

    Source: S. Holm, "A simple sequentially rejective multiple test procedure", Scandinavian Journal of Statistics 6
    (1979), 65-70.

    Args:
        p_values: p-values of one family of tests, (tests,).
    """
    order = np.argsort(p_values, kind="stable")
    steps = p_values[order] * np.arange(len(p_values), 0, -1)
    corrected = np.empty_like(p_values)
    corrected[order] = np.minimum(1.0, np.maximum.accumulate(steps))
    return corrected
