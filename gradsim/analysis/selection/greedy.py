"""The order in which a greedy forward selection takes layers."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gradsim.analysis.candidate_lists import CandidateLists
from gradsim.analysis.evaluation import TOLERANCE, Criterion
from gradsim.analysis.layer_dots import LayerDots

Floats = NDArray[np.float64]
Positions = NDArray[np.int64]

# Pairs are looked at so many at a time, in so many layers at a time: what is computed of them stays in a processor's
# cache, and ten times as many pairs take ten times as long.
_PAIRS_AT_ONCE = 8192
_NUMBERS_AT_ONCE = 1 << 15


class Steps(NamedTuple):
    """What a forward selection chose, step by step, (steps,) each.

    Attributes:
        order: positions of layers.
        values: what the layers chosen so far are worth together.
        tied: how many layers would have been worth as much, the chosen one included.
    """

    order: Positions
    values: Floats
    tied: Positions


def greedy_order(
    layer_dots: LayerDots, criterion: Criterion, *, sizes: Positions | None = None, budget: int | None = None
) -> Steps:
    """Layers in the order in which a greedy forward selection chooses them.

    Each step takes the layer that, with those chosen before, has the highest value; of equal ones the first in model
    order. The similarity of a pair over several layers is that of `LayerDots.similarity`.

    A step tries every layer left, which costs some ten operations a pair: L(L + 1)/2 such trials in all.

    Args:
        layer_dots: of the queries to select on.
        criterion: accuracy, or similarity (cosine) of all pairs' similarities to those of the full gradient.
        sizes: (layers,) parameters of each layer; with `budget`.
        budget: at most so many parameters are chosen in all; None: all layers are, in the end.

    Returns:
        As many steps as there are layers, or as fit the budget.
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
    """Layers such that the first m of them are those that a backward elimination keeps when m are left.

    From all layers, each step gives up the one without which the others have the highest value; of equal ones the last
    in model order.

    Args:
        layer_dots: of the queries to select on.
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
    """Positions of consecutive queries with few enough pairs, at least one query each."""
    block = (np.cumsum(lists.lengths) - 1) // _PAIRS_AT_ONCE
    return np.split(np.arange(len(block)), np.flatnonzero(np.diff(block)) + 1)


def _accuracies(blocks: Sequence["_Block"], layers: Positions, *, without: bool = False) -> Floats:
    """(layers,) accuracy over the layers taken and one of these more, or without one of these."""
    found = np.zeros(len(layers))
    for block in blocks:
        found += np.concatenate([block.found(scores) for scores in block.scores(layers, without=without)])
    return np.asarray(found / sum(len(block.lists.source) for block in blocks))


def _similarities(blocks: Sequence["_Block"], layers: Positions, *, without: bool = False) -> Floats:
    """(layers,) similarity to the full gradient over the same; 0 for 0/0."""
    sums = np.zeros((2, len(layers)))
    for block in blocks:
        # einsum adds in the same order however many layers are tried at once; a matrix product does not.
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
    """Dots of some queries with one row a layer, and sums of the rows that were taken.

    Attributes:
        dots: (layers, pairs).
        query_self: (layers, queries).
        original_self: (layers, originals).
        taken: sums over the layers taken, (pairs,), (queries,), (originals,).
        query: (pairs,) position of each pair's query.
        original: (pairs,) position of each pair's original.
        lists: the candidate lists.
        full: (pairs,) similarity of the full gradient.
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
        """Add layers to those taken, or take them back."""
        for total, table in zip(self.taken, (self.dots, self.query_self, self.original_self), strict=True):
            (np.subtract if back else np.add)(total, table[layers].sum(axis=0), out=total)

    def scores(self, layers: Positions, *, without: bool) -> Iterator[Floats]:
        """(some layers, pairs) similarities over the layers taken and one of these more, or without one of these."""
        at_once = max(1, _NUMBERS_AT_ONCE // self.dots.shape[1])
        dots, query_self, original_self = self.taken
        change = np.subtract if without else np.add
        for start in range(0, len(layers), at_once):
            tried = layers[start : start + at_once]
            # What is left of a sum after its last term was taken away may be a little below zero.
            norms = np.sqrt(np.maximum(change(query_self, self.query_self[tried]), 0.0)).take(self.query, axis=1)
            norms *= np.sqrt(np.maximum(change(original_self, self.original_self[tried]), 0.0)).take(
                self.original, axis=1
            )
            norms[norms == 0] = np.inf  # a gradient that is zero in all these layers has similarity 0
            scores = change(dots, self.dots[tried])
            scores /= norms
            yield scores

    def found(self, scores: Floats) -> Floats:
        """(layers,) number of sources found by each row of scores."""
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
