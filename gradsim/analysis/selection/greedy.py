"""Greedy forward selection and backward elimination of layers."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from gradsim.analysis.arrays import Floats, Positions
from gradsim.analysis.candidate_lists import CandidateLists
from gradsim.analysis.evaluation import TOLERANCE, Criterion
from gradsim.analysis.layer_dots import LayerDots

# Number of pairs, and of pairs times layers, to process at a time. Intermediate results then fit in the CPU cache, and
# run time grows linearly with the number of pairs.
_PAIRS_AT_ONCE = 8192
_NUMBERS_AT_ONCE = 1 << 15


class Steps(NamedTuple):
    """Steps of a forward selection, (steps,) each.

    Attributes:
        order: indices of the chosen layers.
        values: joint value of the layers chosen so far.
        tied: number of layers tied for the step, including the chosen one.
    """

    order: Positions
    values: Floats
    tied: Positions


def greedy_order(
    layer_dots: LayerDots, criterion: Criterion, *, sizes: Positions | None = None, budget: int | None = None
) -> Steps:
    """Choose layers by greedy forward selection.

    Each step adds the layer that gives the highest value together with the layers chosen before, the first in model
    order if tied. Similarities of pairs over several layers are those of `LayerDots.similarity`.

    Each step tries every remaining layer, at about ten operations per pair: L(L + 1)/2 trials in total.

    Args:
        layer_dots: dot products of the queries to select on.
        criterion: accuracy, or similarity (cosine between the selection's and the full gradient's similarities of all
            pairs).
        sizes: number of parameters of each layer, (layers,); required with `budget`.
        budget: maximum total number of parameters; None to choose all layers.

    Returns:
        One step per layer, or as many as fit the budget.
    """
    blocks = [_Block.of(layer_dots.of_queries(queries)) for queries in _query_blocks(layer_dots.lists)]
    value = _accuracies if criterion is Criterion.ACCURACY else _similarities
    left = np.arange(len(layer_dots.layers))
    steps: list[tuple[int, float, int]] = []
    room = budget
    while True:
        if sizes is not None and room is not None:
            left = left[sizes[left] <= room]
        if not len(left):
            break
        tried = value(blocks, left)
        equal = np.flatnonzero(tried >= tried.max() - TOLERANCE)
        layer = int(left[equal[0]])
        steps.append((layer, float(tried[equal[0]]), len(equal)))
        for block in blocks:
            block.take(left[equal[:1]])
        left = np.delete(left, equal[0])
        if sizes is not None and room is not None:
            room -= int(sizes[layer])
    order, values, tied = np.array(steps, dtype=np.float64).reshape(-1, 3).T
    return Steps(order.astype(np.int64), values, tied.astype(np.int64))


def elimination_order(layer_dots: LayerDots, criterion: Criterion) -> Positions:
    """Order layers by backward elimination: the first m are those that remain when m are left.

    Starting with all layers, each step removes the layer that leaves the highest value, the last in model order if
    tied.

    Args:
        layer_dots: dot products of the queries to select on.
        criterion: accuracy, or similarity to the full gradient.
    """
    blocks = [_Block.of(layer_dots.of_queries(queries)) for queries in _query_blocks(layer_dots.lists)]
    value = _accuracies if criterion is Criterion.ACCURACY else _similarities
    left = np.arange(len(layer_dots.layers))
    for block in blocks:
        block.take(left)
    given_up: list[int] = []
    while len(left) > 1:
        tried = value(blocks, left, without=True)
        worst = int(np.flatnonzero(tried >= tried.max() - TOLERANCE)[-1])
        for block in blocks:
            block.take(left[[worst]], back=True)
        given_up.append(int(left[worst]))
        left = np.delete(left, worst)
    return np.array([*left, *reversed(given_up)], dtype=np.int64)


def _query_blocks(lists: CandidateLists) -> list[Positions]:
    """Split the queries into consecutive blocks of about `_PAIRS_AT_ONCE` pairs, at least one query each."""
    block = (np.cumsum(lists.lengths) - 1) // _PAIRS_AT_ONCE
    return np.split(np.arange(len(block)), np.flatnonzero(np.diff(block)) + 1)


def _accuracies(blocks: Sequence["_Block"], layers: Positions, *, without: bool = False) -> Floats:
    """Return the accuracy after adding each layer to the taken ones, or after removing it, (layers,)."""
    found = np.zeros(len(layers))
    for block in blocks:
        found += np.concatenate([block.found(scores) for scores in block.scores(layers, without=without)])
    return np.asarray(found / sum(len(block.lists.source) for block in blocks))


def _similarities(blocks: Sequence["_Block"], layers: Positions, *, without: bool = False) -> Floats:
    """Return the similarity to the full gradient after adding or removing each layer, (layers,); 0 for 0/0."""
    sums = np.zeros((2, len(layers)))
    for block in blocks:
        # einsum sums in the same order for any number of layers; a matrix product does not.
        tried = [
            (np.einsum("lp,p->l", scores, block.full), np.einsum("lp,lp->l", scores, scores))
            for scores in block.scores(layers, without=without)
        ]
        sums += np.concatenate(tried, axis=1)
    with_full, squares = sums
    full_squares = sum(float(np.einsum("p,p->", block.full, block.full)) for block in blocks)
    norms = np.sqrt(squares) * np.sqrt(full_squares)
    return np.asarray(np.divide(with_full, norms, out=np.zeros_like(norms), where=norms > 0))


@dataclass(frozen=True)
class _Block:
    """Dot products of a block of queries, one row per layer, with running sums over the taken layers.

    Attributes:
        dots: (layers, pairs).
        query_self: (layers, queries).
        original_self: (layers, originals).
        taken: sums over the taken layers, (pairs,), (queries,), (originals,).
        query: index of each pair's query, (pairs,).
        original: index of each pair's original, (pairs,).
        lists: candidate lists of the queries.
        full: similarity of each pair's full gradients, (pairs,).
    """

    dots: Floats
    query_self: Floats
    original_self: Floats
    taken: tuple[Floats, Floats, Floats]
    query: Positions
    original: Positions
    lists: CandidateLists
    full: Floats

    @classmethod
    def of(cls, layer_dots: LayerDots) -> "_Block":
        tables = (layer_dots.dots, layer_dots.query_self_dots, layer_dots.original_self_dots)
        dots, query_self, original_self = (np.ascontiguousarray(table.T) for table in tables)
        return cls(
            dots,
            query_self,
            original_self,
            taken=(np.zeros(dots.shape[1]), np.zeros(query_self.shape[1]), np.zeros(original_self.shape[1])),
            query=layer_dots.lists.query,
            original=layer_dots.original,
            lists=layer_dots.lists,
            full=layer_dots.similarity(),
        )

    def take(self, layers: Positions, *, back: bool = False) -> None:
        """Add layers to the taken ones, or remove them if `back` is set."""
        for total, table in zip(self.taken, (self.dots, self.query_self, self.original_self), strict=True):
            (np.subtract if back else np.add)(total, table[layers].sum(axis=0), out=total)

    def scores(self, layers: Positions, *, without: bool) -> Iterator[Floats]:
        """Yield similarities after adding each layer to the taken ones, or after removing it, (some layers, pairs)."""
        at_once = max(1, _NUMBERS_AT_ONCE // self.dots.shape[1])
        dots, query_self, original_self = self.taken
        change = np.subtract if without else np.add
        for start in range(0, len(layers), at_once):
            tried = layers[start : start + at_once]
            # Removing the last term of a sum can leave a value slightly below zero.
            norms = np.sqrt(np.maximum(change(query_self, self.query_self[tried]), 0.0)).take(self.query, axis=1)
            norms *= np.sqrt(np.maximum(change(original_self, self.original_self[tried]), 0.0)).take(
                self.original, axis=1
            )
            norms[norms == 0] = np.inf  # a gradient that is zero in all these layers has similarity 0
            scores = change(dots, self.dots[tried])
            scores /= norms
            yield scores

    def found(self, scores: Floats) -> Floats:
        """Return the number of sources found by each row of scores, (layers,); ties count fractionally."""
        source, starts = self.lists.source, self.lists.starts
        of_source = scores.take(source, axis=1)
        others = scores.copy()
        others[:, source] = -np.inf
        best_other = np.maximum.reduceat(others, starts, axis=1)
        found = (of_source > best_other).sum(axis=1).astype(np.float64)
        tied = np.flatnonzero((of_source == best_other).any(axis=1))
        if len(tied):
            found[tied] = self.lists.credit(scores[tied].T).sum(axis=0)
        return np.asarray(found)
