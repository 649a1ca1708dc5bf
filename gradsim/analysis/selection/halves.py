"""Selections made on one half of the queries and evaluated on the other, over repeated random splits."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from gradsim.analysis.arrays import Floats, Positions
from gradsim.analysis.evaluation import Criterion, Evaluation
from gradsim.analysis.statistics import Bootstrap, percentile_interval, wilson_interval

SPLITS = 10


@dataclass(frozen=True)
class Half:
    """Split of the queries into a half to select on and a half to evaluate on.

    Attributes:
        chosen_on: indices of the queries to select on, ascending.
        judged_on: indices of the other queries, ascending.
    """

    chosen_on: Positions
    judged_on: Positions


def split_halves(n_queries: int, *, seed: int) -> Iterator[Half]:
    """Yield both assignments of the halves for each of `SPLITS` random splits."""
    for split in range(SPLITS):
        drawn = np.random.default_rng([seed, split]).permutation(n_queries)
        first, second = np.sort(drawn[: n_queries // 2]), np.sort(drawn[n_queries // 2 :])
        yield Half(first, second)
        yield Half(second, first)


@dataclass(frozen=True)
class HeldOut:
    """Held-out values, averaged over the halves that they are evaluated on.

    Similarities to the full gradient are computed per half and then averaged: selections of different halves differ in
    scale, so their sums must not be pooled. Intervals cover variation over queries, but not over splits.

    Attributes:
        halves: indices of the held-out queries and their evaluation, with the same columns in each.
    """

    halves: list[tuple[Positions, Evaluation]] = field(default_factory=list)

    def add(self, half: Half, evaluation: Evaluation) -> None:
        """Add the evaluation of a half's held-out queries."""
        self.halves.append((half.judged_on, evaluation))

    @property
    def credit(self) -> Floats:
        """Credit of each query, averaged over splits, (queries, columns)."""
        n_queries = sum(len(queries) for queries, _ in self.halves) // SPLITS
        credit = np.zeros((n_queries, self.halves[0][1].credit.shape[1]))
        for queries, evaluation in self.halves:
            credit[queries] += evaluation.credit
        return credit / SPLITS

    def value(self, criterion: Criterion) -> Floats:
        """Return the accuracy or the similarity to the full gradient, (columns,)."""
        if criterion is Criterion.ACCURACY:
            return np.asarray(self.credit.mean(axis=0))
        return np.asarray(np.mean([evaluation.similarity for _, evaluation in self.halves], axis=0))

    def draws(self, criterion: Criterion, bootstrap: Bootstrap) -> Floats:
        """Return the value of each bootstrap resample, (resamples, columns)."""
        if criterion is Criterion.ACCURACY:
            credit = self.credit
            return np.asarray(bootstrap.totals(credit) / len(credit))
        # A resample may contain no query of a very small half.
        sums, drawn = np.zeros(1), np.zeros(1)
        for queries, evaluation in self.halves:
            draws = evaluation.draws(criterion, bootstrap, queries)
            sums, drawn = sums + np.nan_to_num(draws), drawn + ~np.isnan(draws)
        return np.asarray(sums / drawn)

    def interval(self, criterion: Criterion, bootstrap: Bootstrap) -> tuple[Floats, Floats]:
        """Return the lower and upper end of the value's 95 % interval, (columns,) each.

        Use the Wilson interval for accuracy and a bootstrap percentile interval for similarity.
        """
        if criterion is Criterion.ACCURACY:
            credit = self.credit
            return wilson_interval(credit.sum(axis=0), len(credit))
        return percentile_interval(self.draws(criterion, bootstrap))
