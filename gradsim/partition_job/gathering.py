"""Gather the engine's tiles into complete queries."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from gradsim.analysis.arrays import Floats, Positions
from gradsim.gradients import Tile
from gradsim.partition_job.inputs import JobInputs

# Maximum pairs times layers per group of queries, unless a single query has more.
_AT_ONCE = 1 << 20


@dataclass(frozen=True)
class PairNumbers:
    """Inner products of the pairs of one or more consecutive queries; NaN for samples with a non-finite loss.

    Attributes:
        dots: (pairs, layers), exact; None: not requested.
        projected: (projectors, pairs, layers); None: not requested.
        sums: (methods, pairs), dots summed over layers.
    """

    dots: Floats | None
    projected: Floats | None
    sums: Floats


@dataclass(frozen=True)
class Method:
    """A similarity: the cosine of dots summed over layers.

    Attributes:
        projector: name of the projector; None: exact dots.
        weights: (layers,) weights; None: all 1.
    """

    projector: str | None = None
    weights: Floats | None = None

    def sums(self, dots: Floats) -> Floats:
        """Sum dots over layers, (n, layers) -> (n,), with the memory layout and hence the rounding of the analyses."""
        dots = np.ascontiguousarray(dots)
        return np.asarray(dots.sum(axis=1) if self.weights is None else dots @ self.weights)


@dataclass(frozen=True)
class CompleteQueries:
    """Consecutive queries whose inner products are complete.

    Attributes:
        queries: positions of the queries.
        pairs: positions of their pairs.
        numbers: inner products of the pairs.
    """

    queries: range
    pairs: slice
    numbers: PairNumbers


class Gathered:
    """Consumes tiles on demand until requested queries are complete.

    The arrays of a query's pairs exist from its first tile until `complete` yields the query. Tiles come in blocks of
    queries, so at most one block is in memory. Self dots are kept, because samples occur in several tiles.

    Attributes:
        query_self, original_self: (queries | originals, layers), exact self dots; NaN for samples that have not been
            computed or have a non-finite loss.
        projected_query_self, projected_original_self: (projectors, queries | originals, layers), projected self dots.
        query_losses, original_losses: (queries | originals,), mean cross-entropy of each sample; NaN as above.
        query_sums, original_sums: (methods, queries | originals), self dots summed over layers.
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
        """Allocate the self dots.

        Args:
            tiles: tiles to consume.
            inputs: samples and pairs of the tiles.
            projectors: names of the projectors in the tiles.
            methods: requested similarities, that of the full gradient first.
            n_layers: number of layers in the tiles.
            with_dots: whether to keep exact dots per layer besides their sums.
            with_projected: whether to keep projected dots per layer besides their sums.
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
        """Number of leading queries that are complete."""
        self._handed_out = 0
        sizes = len(inputs.queries), len(inputs.originals)
        self.query_self, self.original_self = (np.full((size, n_layers), np.nan) for size in sizes)
        self.projected_query_self, self.projected_original_self = (
            np.full((len(projectors), size, n_layers), np.nan) for size in sizes
        )
        self.query_losses, self.original_losses = (np.full(size, np.nan) for size in sizes)
        self.query_sums, self.original_sums = (np.full((len(methods), size), np.nan) for size in sizes)

    def complete(self, queries: slice) -> Iterator[CompleteQueries]:
        """Yield the remaining queries before `queries.stop`, in order and in groups, as soon as they are complete."""
        while self._handed_out < queries.stop:
            while self._done <= self._handed_out:
                self._take_tile()
            yield self._hand_out(min(self._done, queries.stop))

    def _hand_out(self, done: int) -> CompleteQueries:
        """Return the next group of queries before position `done`, limited to `_AT_ONCE` numbers."""
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
        """Store the numbers of the next tile."""
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
        # A new plan restarts the count.
        self._done = max(self._done, tile.queries_done)


def _runs(values: Positions) -> Iterator[tuple[int, slice]]:
    """Yield each distinct value of a sorted array with its slice."""
    if len(values):
        starts = [0, *(np.flatnonzero(np.diff(values)) + 1).tolist(), len(values)]
        for start, stop in pairwise(starts):
            yield int(values[start]), slice(start, stop)
