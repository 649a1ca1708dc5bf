"""From the engine's tiles to the numbers of queries that are complete."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from gradsim.gradients import Tile
from gradsim.partition_job.inputs import JobInputs

Floats = NDArray[np.float64]

# Numbers of pairs that are handed on together, unless a single query has more.
_AT_ONCE = 1 << 20


@dataclass(frozen=True)
class PairNumbers:
    """Numbers of pairs, a query's or those of several in a row; NaN where a loss was not finite.

    Attributes:
        dots: (pairs, layers), exact; None if nobody asked for them.
        projected: (projectors, pairs, layers); None if nobody asked for them.
        sums: (methods, pairs), dots summed over layers.
    """

    dots: Floats | None
    projected: Floats | None
    sums: Floats


@dataclass(frozen=True)
class Method:
    """A similarity: a cosine of sums over layers.

    Attributes:
        projector: whose dots are summed; None: the exact ones.
        weights: (layers,) how often each layer counts; None: once.
    """

    projector: str | None = None
    weights: Floats | None = None

    def sums(self, dots: Floats) -> Floats:
        """(n, layers) -> (n,); in memory as analysis has it, for the same rounding."""
        dots = np.ascontiguousarray(dots)
        return np.asarray(dots.sum(axis=1) if self.weights is None else dots @ self.weights)


@dataclass(frozen=True)
class CompleteQueries:
    """Queries of which every number is there: their positions, those of their pairs, and the pairs' numbers."""

    queries: range
    pairs: slice
    numbers: PairNumbers


class Gathered:
    """Takes tiles while it is asked for queries that are complete, and holds what came until then.

    Room for a query's pairs is made when the first of them comes, and given back when the query is handed out: as tiles
    come in blocks of queries, no more than a block is held. Self dots are kept, as samples are met again.

    Attributes:
        query_self, original_self: (queries | originals, layers), exact self dots; NaN where a sample did not come yet,
            or its loss was not finite.
        projected_query_self, projected_original_self: (projectors, queries | originals, layers), the same.
        query_losses, original_losses: (queries | originals,), mean cross-entropy of each sample; NaN as above.
        query_sums, original_sums: (methods, queries | originals), summed over layers as `PairNumbers.sums`.
    """

    def __init__(
        self,
        tiles: Iterator[Tile],
        inputs: JobInputs,
        projectors: Sequence[str],
        methods: Sequence[Method],
        n_layers: int,
        *,
        with_dots: bool,
        with_projected: bool,
    ) -> None:
        """Make room for self dots.

        Args:
            tiles: taken as far as needed.
            inputs: what the tiles compare.
            projectors: names of the projectors in the tiles.
            methods: the similarities that are wanted, that of the full gradient first.
            n_layers: layers in the tiles.
            with_dots: whether the exact dots of each layer are wanted, or only their sums.
            with_projected: the same of the projected ones.
        """
        self._tiles = tiles
        self._inputs = inputs
        self._projectors = projectors
        self._methods = methods
        self._n_layers = n_layers
        self._with_dots = with_dots
        self._with_projected = with_projected
        self._starts = np.searchsorted(inputs.pairs[:, 0], np.arange(len(inputs.queries) + 1))
        self._in_progress: dict[int, PairNumbers] = {}
        self._done = 0
        """Every number of queries before this position came."""
        self._handed_out = 0
        sizes = len(inputs.queries), len(inputs.originals)
        self.query_self, self.original_self = (np.full((size, n_layers), np.nan) for size in sizes)
        self.projected_query_self, self.projected_original_self = (
            np.full((len(projectors), size, n_layers), np.nan) for size in sizes
        )
        self.query_losses, self.original_losses = (np.full(size, np.nan) for size in sizes)
        self.query_sums, self.original_sums = (np.full((len(methods), size), np.nan) for size in sizes)

    def complete(self, queries: slice) -> Iterator[CompleteQueries]:
        """What was not handed out yet of these queries, in order, a few at a time, as soon as they are complete."""
        while self._handed_out < queries.stop:
            while self._done <= self._handed_out:
                self._take_tile()
            yield self._hand_out(min(self._done, queries.stop))

    def _hand_out(self, done: int) -> CompleteQueries:
        """The next queries, as many before `done` as are not too many at once."""
        start = self._handed_out
        stop = start + 1
        while stop < done and (self._starts[stop + 1] - self._starts[start]) * self._n_layers <= _AT_ONCE:
            stop += 1
        rooms = [self._in_progress.pop(query) for query in range(start, stop)]
        dots = [room.dots for room in rooms if room.dots is not None]
        projected = [room.projected for room in rooms if room.projected is not None]
        self._handed_out = stop
        return CompleteQueries(
            range(start, stop),
            slice(int(self._starts[start]), int(self._starts[stop])),
            PairNumbers(
                np.concatenate(dots) if self._with_dots else None,
                np.concatenate(projected, axis=1) if self._with_projected else None,
                np.concatenate([room.sums for room in rooms], axis=1),
            ),
        )

    def _room(self, query: int) -> PairNumbers:
        size = int(self._starts[query + 1] - self._starts[query])
        projected_shape = len(self._projectors), size, self._n_layers
        return PairNumbers(
            np.full((size, self._n_layers), np.nan) if self._with_dots else None,
            np.full(projected_shape, np.nan) if self._with_projected else None,
            np.full((len(self._methods), size), np.nan),
        )

    def _take_tile(self) -> None:
        """Put the next tile's numbers where they belong."""
        tile = next(self._tiles)
        projected = [tile.projected[name] for name in self._projectors]
        self.query_self[tile.queries] = tile.query_self_dots
        self.original_self[tile.originals] = tile.original_self_dots
        self.query_losses[tile.queries] = tile.query_losses
        self.original_losses[tile.originals] = tile.original_losses
        for place, part in enumerate(projected):
            self.projected_query_self[place, tile.queries] = part.query_self_dots
            self.projected_original_self[place, tile.originals] = part.original_self_dots
        sums = np.empty((len(self._methods), len(tile.pairs)))
        for place, method in enumerate(self._methods):
            dots = tile if method.projector is None else tile.projected[method.projector]
            sums[place] = method.sums(dots.dots)
            self.query_sums[place, tile.queries] = method.sums(dots.query_self_dots)
            self.original_sums[place, tile.originals] = method.sums(dots.original_self_dots)
        for query, rows in _runs(self._inputs.pairs[tile.pairs, 0]):
            if query not in self._in_progress:
                self._in_progress[query] = self._room(query)
            room = self._in_progress[query]
            places = tile.pairs[rows] - self._starts[query]
            room.sums[:, places] = sums[:, rows]
            if room.dots is not None:
                room.dots[places] = tile.dots[rows]
            if room.projected is not None:
                for place, part in enumerate(projected):
                    room.projected[place, places] = part.dots[rows]
        # A plan that was made anew counts from the beginning again.
        self._done = max(self._done, tile.queries_done)


def _runs(values: NDArray[np.int64]) -> Iterator[tuple[int, slice]]:
    """Each value of an ascending array, and where it stands."""
    if len(values):
        starts = [0, *(np.flatnonzero(np.diff(values)) + 1).tolist(), len(values)]
        for start, stop in pairwise(starts):
            yield int(values[start]), slice(start, stop)
