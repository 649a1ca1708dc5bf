"""Accuracy and similarity to the full gradient, with 95 % intervals, from similarities of pairs."""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from gradsim.analysis.arrays import Floats, Positions
from gradsim.analysis.candidate_lists import CandidateLists
from gradsim.analysis.layer_dots import LayerDots
from gradsim.analysis.statistics import Bootstrap, percentile_interval, wilson_interval

# Summation order can change values by this much. Values within it are tied, and model order breaks the tie.
TOLERANCE = 1e-12

# Number of dots per part, sized to fit in the CPU cache. One large part is slower and needs several copies.
_DOTS_AT_ONCE = 1 << 17


class Criterion(StrEnum):
    """Criterion for similarities: accuracy (sources found), or similarity to the full gradient."""

    ACCURACY = "accuracy"
    SIMILARITY = "similarity"


@dataclass(frozen=True)
class Evaluation:
    """Per-query statistics of one or more columns of similarities, sufficient to compute and resample their values.

    Attributes:
        credit: credit of each query, (queries, columns).
        with_full: sums over each query's pairs of similarity times full-gradient similarity, (queries, columns).
        squares: sums over each query's pairs of squared similarity, (queries, columns).
        full_squares: sums over each query's pairs of squared full-gradient similarity, (queries, 1).
    """

    credit: Floats
    with_full: Floats
    squares: Floats
    full_squares: Floats

    @classmethod
    def of(cls, lists: CandidateLists, similarities: Floats, full: Floats) -> "Evaluation":
        """Compute the statistics from similarities.

        Args:
            lists: candidate lists of the pairs.
            similarities: (pairs, columns).
            full: similarities of the full gradient, (pairs,).
        """
        starts, full = lists.starts, full[:, None]
        return cls(
            lists.credit(similarities),
            np.add.reduceat(similarities * full, starts, axis=0),
            np.add.reduceat(similarities**2, starts, axis=0),
            np.add.reduceat(full**2, starts, axis=0),
        )

    @classmethod
    def empty(cls, n_queries: int, n_columns: int) -> "Evaluation":
        """Return statistics of zeros, to fill with `add`."""
        wide = (n_queries, n_columns)
        return cls(np.zeros(wide), np.zeros(wide), np.zeros(wide), np.zeros((n_queries, 1)))

    def add(self, other: "Evaluation", queries: Positions) -> None:
        """Add another evaluation to the rows of `queries`."""
        self.credit[queries] += other.credit
        self.with_full[queries] += other.with_full
        self.squares[queries] += other.squares
        self.full_squares[queries] += other.full_squares

    @property
    def accuracy(self) -> Floats:
        """Mean credit, (columns,)."""
        return np.asarray(self.credit.mean(axis=0))

    @property
    def similarity(self) -> Floats:
        """Cosine between each column's and the full gradient's similarities of all pairs, (columns,); 0 for 0/0."""
        return _cosine(self.with_full.sum(axis=0), self.squares.sum(axis=0), self.full_squares.sum(axis=0))

    def value(self, criterion: Criterion) -> Floats:
        """Return the accuracy or the similarity to the full gradient, (columns,)."""
        return self.accuracy if criterion is Criterion.ACCURACY else self.similarity

    def draws(self, criterion: Criterion, bootstrap: Bootstrap, queries: Positions | None = None) -> Floats:
        """Return the value of each bootstrap resample, (resamples, columns).

        Args:
            criterion: value to resample.
            bootstrap: resamples of all queries of the study.
            queries: indices of the queries in this evaluation; None for all. The value is NaN if a resample has none of
                them.
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
        """Return the lower and upper end of the value's 95 % interval, (columns,) each.

        Use the Wilson interval for accuracy and a bootstrap percentile interval for similarity.
        """
        if criterion is Criterion.ACCURACY:
            return wilson_interval(self.credit.sum(axis=0), len(self.credit))
        return percentile_interval(self.draws(criterion, bootstrap))


def _cosine(dots: Floats, squares: Floats, full_squares: Floats) -> Floats:
    norms = np.sqrt(squares) * np.sqrt(full_squares)
    return np.asarray(np.divide(dots, norms, out=np.zeros_like(dots), where=norms > 0))


def evaluate_layers(layer_dots: LayerDots) -> Evaluation:
    """Evaluate the similarities of each layer alone, one column per layer."""
    evaluation = Evaluation.empty(*layer_dots.query_self_dots.shape)
    for queries, part in in_parts(layer_dots):
        evaluation.add(Evaluation.of(part.lists, part.layer_similarities(), part.similarity()), queries)
    return evaluation


def in_parts(layer_dots: LayerDots) -> Iterator[tuple[Positions, LayerDots]]:
    """Yield the indices and dot products of consecutive queries, in parts that fit in the CPU cache."""
    ends = np.cumsum(layer_dots.lists.lengths) * len(layer_dots.layers)
    part = ends // _DOTS_AT_ONCE
    for queries in np.split(np.arange(len(part)), np.flatnonzero(np.diff(part)) + 1):
        yield queries, layer_dots.of_queries(queries)
