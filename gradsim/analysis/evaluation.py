"""What similarities of pairs are worth: accuracy, and similarity to the full gradient, with intervals."""

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from gradsim.analysis.candidate_lists import CandidateLists
from gradsim.analysis.statistics import Bootstrap, percentile_interval, wilson_interval

Floats = NDArray[np.float64]

# Sums in another order may differ by so much: values as near as that are equal, and the model's order decides.
TOLERANCE = 1e-12


class Criterion(StrEnum):
    """What similarities are judged by: how many sources they find, or how like the full gradient they are."""

    ACCURACY = "accuracy"
    SIMILARITY = "similarity"


@dataclass(frozen=True)
class Evaluation:
    """One row a query, of one or more columns of similarities: what it takes to have values and resample them.

    Attributes:
        credit: (queries, columns) what each query counts.
        with_full: (queries, columns) its pairs' similarities times those of the full gradient, summed.
        squares: (queries, columns) its pairs' squared similarities, summed.
        full_squares: (queries, 1) the same of the full gradient.
    """

    credit: Floats
    with_full: Floats
    squares: Floats
    full_squares: Floats

    @classmethod
    def of(cls, lists: CandidateLists, similarities: Floats, full: Floats) -> "Evaluation":
        """Of (pairs, columns) similarities beside the full gradient's, (pairs,)."""
        starts, full = lists.starts, full[:, None]
        return cls(
            lists.credit(similarities),
            np.add.reduceat(similarities * full, starts, axis=0),
            np.add.reduceat(similarities**2, starts, axis=0),
            np.add.reduceat(full**2, starts, axis=0),
        )

    @classmethod
    def empty(cls, n_queries: int, n_columns: int) -> "Evaluation":
        """To add others to."""
        wide = (n_queries, n_columns)
        return cls(np.zeros(wide), np.zeros(wide), np.zeros(wide), np.zeros((n_queries, 1)))

    def add(self, other: "Evaluation", queries: NDArray[np.int64]) -> None:
        """Add what another says of these queries."""
        self.credit[queries] += other.credit
        self.with_full[queries] += other.with_full
        self.squares[queries] += other.squares
        self.full_squares[queries] += other.full_squares

    @property
    def accuracy(self) -> Floats:
        """(columns,) mean credit."""
        return np.asarray(self.credit.mean(axis=0))

    @property
    def similarity(self) -> Floats:
        """(columns,) cosine of all pairs' similarities with the full gradient's; 0 for 0/0."""
        return _cosine(self.with_full.sum(axis=0), self.squares.sum(axis=0), self.full_squares.sum(axis=0))

    def value(self, criterion: Criterion) -> Floats:
        """(columns,) accuracy or similarity."""
        return self.accuracy if criterion is Criterion.ACCURACY else self.similarity

    def draws(self, criterion: Criterion, bootstrap: Bootstrap, queries: NDArray[np.int64] | None = None) -> Floats:
        """(resamples, columns) the same of resampled queries.

        Args:
            criterion: the value.
            bootstrap: of all queries.
            queries: positions of those that this is an evaluation of; None: all. NaN where none of them is drawn.
        """
        sums = [self.credit] if criterion is Criterion.ACCURACY else [self.with_full, self.squares, self.full_squares]
        totals = bootstrap.totals(np.column_stack([*sums, np.ones(len(self.credit))]), queries)
        drawn, n_columns = totals[:, -1:], self.credit.shape[1]
        if criterion is Criterion.ACCURACY:
            values = totals[:, :n_columns] / np.maximum(drawn, 1)
        else:
            values = _cosine(totals[:, :n_columns], totals[:, n_columns : 2 * n_columns], totals[:, -2:-1])
        return np.where(drawn > 0, values, np.nan)

    def interval(self, criterion: Criterion, bootstrap: Bootstrap) -> tuple[Floats, Floats]:
        """(columns,) ends of the value's 95 % interval: Wilson's for accuracy, a bootstrap for similarity."""
        if criterion is Criterion.ACCURACY:
            return wilson_interval(self.credit.sum(axis=0), len(self.credit))
        return percentile_interval(self.draws(criterion, bootstrap))


def _cosine(dots: Floats, squares: Floats, full_squares: Floats) -> Floats:
    norms = np.sqrt(squares) * np.sqrt(full_squares)
    return np.asarray(np.divide(dots, norms, out=np.zeros_like(dots), where=norms > 0))
