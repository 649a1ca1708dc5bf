"""Intervals and tests for shares and means of queries."""

from collections.abc import Iterator
from functools import cached_property
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import bdtr

Floats = NDArray[np.float64]
Positions = NDArray[np.int64]

Z_95 = NormalDist().inv_cdf(0.975)

SIGNIFICANT = 0.05
"""Two are told apart where p after Holm's correction is smaller."""

RESAMPLES = 1000

# Weights are drawn so many numbers at a time, which a processor's cache about holds.
_WEIGHTS_AT_ONCE = 1 << 20

# Up to so many of them are kept, in two bytes each.
_COUNTS_KEPT = 1 << 25


def wilson_interval(successes: ArrayLike, trials: ArrayLike) -> tuple[Floats, Floats]:
    """Lower and upper end of Wilson's 95 % score interval, without continuity correction.

    Successes need not be whole: a query whose best similarity is shared by n candidates counts 1/n.
    The formula is that of E. B. Wilson, "Probable inference, the law of succession, and statistical
    inference", Journal of the American Statistical Association 22 (1927), 209-212.

    Args:
        successes: between 0 and `trials`, any shape.
        trials: at least 1, broadcast against `successes`.
    """
    successes, trials = np.broadcast_arrays(
        np.asarray(successes, dtype=np.float64), np.asarray(trials, dtype=np.float64)
    )
    if np.any(trials < 1) or np.any(successes < 0) or np.any(successes > trials):
        raise ValueError("an interval needs at least one trial and 0 <= successes <= trials")
    share = successes / trials
    widening = Z_95**2 / trials
    centre = (share + widening / 2) / (1 + widening)
    half_width = np.sqrt(share * (1 - share) * widening + widening**2 / 4) / (1 + widening)
    # At the ends the two terms are equal, and rounding must not leave a trace.
    low = np.where(successes == 0, 0.0, centre - half_width)
    high = np.where(successes == trials, 1.0, centre + half_width)
    return low, high


class Bootstrap:
    """Resamples of a study's queries: each draws as many as there are, with replacement.

    The same seed draws the same queries, so that what is computed from one bootstrap is paired: differences of curves
    need no more than the differences of their draws. B. Efron, "Bootstrap methods: another look at the jackknife",
    The Annals of Statistics 7 (1979), 1-26; intervals are its percentiles.
    """

    def __init__(self, n_queries: int, *, seed: int, resamples: int = RESAMPLES) -> None:
        self.n_queries = n_queries
        self.resamples = resamples
        self._seed = seed

    def totals(self, per_query: Floats, queries: Positions | None = None) -> Floats:
        """Sums over the queries of each resample, (resamples, ...), from one row a query, (n_queries, ...).

        Rows are rounded, to some 12 digits, so that their sums are exact: in whatever order a processor's threads add,
        the bits are the same.

        Args:
            per_query: of all queries, or of some.
            queries: their positions; None: all. The others count nothing.
        """
        columns = _exactly_addable(per_query.reshape(len(per_query), -1), self.n_queries)
        chosen = slice(None) if queries is None else queries
        totals = np.concatenate([weights[:, chosen] @ columns for weights in self.weights()])
        return totals.reshape(self.resamples, *per_query.shape[1:])

    def medians(self, per_query: Floats) -> Floats:
        """Medians over the queries of each resample, (resamples, columns), from (n_queries, columns)."""
        return np.concatenate(
            [np.stack([_medians(column, weights) for column in per_query.T], axis=1) for weights in self.weights()]
        )

    def mean_interval(self, per_query: Floats) -> tuple[Floats, Floats]:
        """Lower and upper end of the mean's 95 % interval, (...), from one row a query, (n_queries, ...)."""
        return percentile_interval(self.totals(per_query) / self.n_queries)

    def weights(self) -> Iterator[Floats]:
        """How often each query is drawn, (some resamples, n_queries) at a time."""
        for counts in self._counts if self.resamples * self.n_queries <= _COUNTS_KEPT else self._draw():
            yield counts.astype(np.float64)

    @cached_property
    def _counts(self) -> list[NDArray[np.uint16]]:
        """Of small studies, so that what is resampled often is drawn once."""
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
    """Numbers rounded to a power of two such that so many of them, however often each, add up without rounding."""
    largest = float(np.abs(values).max(initial=0.0))
    if largest == 0:
        return values
    unit = 2.0 ** (np.ceil(np.log2(largest * terms)) - 52)
    return np.asarray(np.round(values / unit) * unit)


def _medians(values: Floats, weights: Floats) -> Floats:
    """Medians of numbers, (n,), of which each stands so many times, n in all, (resamples, n)."""
    n = len(values)
    ascending = np.argsort(values, kind="stable")
    reached = np.cumsum(weights[:, ascending], axis=1)
    lower, upper = (np.argmax(reached > middle, axis=1) for middle in ((n - 1) // 2, n // 2))
    medians: Floats = (values[ascending][lower] + values[ascending][upper]) / 2
    return medians


def percentile_interval(draws: Floats) -> tuple[Floats, Floats]:
    """Where the middle 95 % of resampled values lie, (...), from (resamples, ...)."""
    low, high = np.quantile(draws, [0.025, 0.975], axis=0)
    return low, high


def exact_mcnemar(only_first: ArrayLike, only_second: ArrayLike) -> Floats:
    """Two-sided p-values of the exact McNemar test, from how many queries only one of two methods finds.

    Under the null hypothesis a query that only one finds is found by either with probability 1/2. Q. McNemar, "Note on
    the sampling error of the difference between correlated proportions or percentages", Psychometrika 12 (1947),
    153-157. 1 where there is no such query.

    Args:
        only_first: counts, any shape.
        only_second: counts of the same shape.
    """
    first, second = np.asarray(only_first), np.asarray(only_second)
    p_values: Floats = np.minimum(1.0, 2 * bdtr(np.minimum(first, second), first + second, 0.5))
    return p_values


def holm(p_values: Floats) -> Floats:
    """p-values of one family of tests, corrected so that the chance of any false rejection stays below the level.

    S. Holm, "A simple sequentially rejective multiple test procedure", Scandinavian Journal of Statistics 6 (1979),
    65-70.

    Args:
        p_values: (tests,).
    """
    order = np.argsort(p_values, kind="stable")
    steps = p_values[order] * np.arange(len(p_values), 0, -1)
    corrected = np.empty_like(p_values)
    corrected[order] = np.minimum(1.0, np.maximum.accumulate(steps))
    return corrected
