"""Selections that are made on one half of the queries and judged on the other, for repeated splits."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from gradsim.analysis.evaluation import Criterion, Evaluation
from gradsim.analysis.statistics import Bootstrap, percentile_interval, wilson_interval

Floats = NDArray[np.float64]
Positions = NDArray[np.int64]

SPLITS = 10


@dataclass(frozen=True)
class Half:
    """One way to split the queries.

    Attributes:
        chosen_on: positions of the queries to select on, ascending.
        judged_on: positions of the others, ascending.
    """

    chosen_on: Positions
    judged_on: Positions


def split_halves(n_queries: int, *, seed: int) -> Iterator[Half]:
    """Both ways to use the halves of each of `SPLITS` splits."""
    for split in range(SPLITS):
        drawn = np.random.default_rng([seed, split]).permutation(n_queries)
        first, second = np.sort(drawn[: n_queries // 2]), np.sort(drawn[n_queries // 2 :])
        yield Half(first, second)
        yield Half(second, first)


@dataclass(frozen=True)
class HeldOut:
    """What something is worth on the judged halves; every value is the mean of theirs.

    Similarities are cosines of a half each: sums over halves of different selections, which differ in scale, would be
    another number. Intervals are over queries; that other splits would select other layers is not in them.

    Attributes:
        halves: queries judged on and their evaluation, of as many columns each.
    """

    halves: list[tuple[Positions, Evaluation]] = field(default_factory=list)

    def add(self, half: Half, evaluation: Evaluation) -> None:
        """What came out on the queries that a half is judged on."""
        self.halves.append((half.judged_on, evaluation))

    @property
    def credit(self) -> Floats:
        """(queries, columns) what each query counts, mean over the splits."""
        n_queries = sum(len(queries) for queries, _ in self.halves) // SPLITS
        credit = np.zeros((n_queries, self.halves[0][1].credit.shape[1]))
        for queries, evaluation in self.halves:
            credit[queries] += evaluation.credit
        return credit / SPLITS

    def value(self, criterion: Criterion) -> Floats:
        """(columns,) accuracy, or similarity to the full gradient."""
        if criterion is Criterion.ACCURACY:
            return np.asarray(self.credit.mean(axis=0))
        return np.asarray(np.mean([evaluation.similarity for _, evaluation in self.halves], axis=0))

    def draws(self, criterion: Criterion, bootstrap: Bootstrap) -> Floats:
        """(resamples, columns) the same of resampled queries."""
        if criterion is Criterion.ACCURACY:
            credit = self.credit
            return np.asarray(bootstrap.totals(credit) / len(credit))
        # A half of very few queries may have none in a resample.
        sums, drawn = np.zeros(1), np.zeros(1)
        for queries, evaluation in self.halves:
            draws = evaluation.draws(criterion, bootstrap, queries)
            sums, drawn = sums + np.nan_to_num(draws), drawn + ~np.isnan(draws)
        return np.asarray(sums / drawn)

    def interval(self, criterion: Criterion, bootstrap: Bootstrap) -> tuple[Floats, Floats]:
        """(columns,) ends of the value's 95 % interval: Wilson's for accuracy, a bootstrap for similarity."""
        if criterion is Criterion.ACCURACY:
            credit = self.credit
            return wilson_interval(credit.sum(axis=0), len(credit))
        return percentile_interval(self.draws(criterion, bootstrap))
