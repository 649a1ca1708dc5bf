"""Gathering numbers on the device until a tile goes to the host."""

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gradsim.gradients.encoding import Nodes
from gradsim.gradients.results import Floats, Positions, ProjectedDots, Tile

# Pairs after which a tile is handed out: few, so that finished queries can be written early.
_PAIRS = 256


class TileBuilder:
    """Collects dots of pairs and self dots of nodes; all values are (..., 1 + projections, layers)."""

    def __init__(self, nodes: Nodes, projections: Sequence[str], n_layers: int) -> None:
        self._nodes = nodes
        self._projections = projections
        self._empty = np.empty((0, 1 + len(projections), n_layers))
        self._clear()

    def _clear(self) -> None:
        self._pairs: list[Positions] = []
        self._dots: list[Tensor] = []
        self._count = 0
        self._selves: list[int] = []
        self._self_dots: list[Tensor] = []

    @property
    def is_full(self) -> bool:
        """Whether it is time to hand a tile out."""
        return self._count >= _PAIRS

    def add_pairs(self, pairs: Positions, values: Tensor) -> None:
        """Dots of pairs, (pairs, 1 + projections, layers)."""
        self._pairs.append(pairs)
        self._dots.append(values)
        self._count += len(pairs)

    def add_self(self, node: int, values: Tensor) -> None:
        """Self dots of a node."""
        self._selves.append(node)
        self._self_dots.append(values)

    def build(self, queries_done: int) -> Tile:
        """A tile of all that was added since the last one."""
        pairs, dots = _sorted(np.concatenate([_NONE, *self._pairs]), self._host(self._dots))
        self_dots = self._host([values[None] for values in self._self_dots])
        queries, query_dots = self._of(self._nodes.queries, self_dots)
        originals, original_dots = self._of(self._nodes.originals, self_dots)
        self._clear()
        return Tile(
            pairs=pairs,
            dots=dots[:, 0],
            queries=queries,
            query_self_dots=query_dots[:, 0],
            originals=originals,
            original_self_dots=original_dots[:, 0],
            queries_done=queries_done,
            projected={
                name: ProjectedDots(
                    dots=dots[:, place],
                    query_self_dots=query_dots[:, place],
                    original_self_dots=original_dots[:, place],
                )
                for place, name in enumerate(self._projections, 1)
            },
        )

    def _host(self, values: list[Tensor]) -> Floats:
        return torch.cat(values).cpu().numpy() if values else self._empty

    def _of(self, group: NDArray[np.int64], self_dots: Floats) -> tuple[Positions, Floats]:
        """Positions in queries or originals of the nodes that were added, with their self dots."""
        found = [np.flatnonzero(group == node) for node in self._selves]
        repeats = [len(positions) for positions in found]
        return _sorted(np.concatenate([_NONE, *found]), np.repeat(self_dots, repeats, axis=0))


_NONE = np.empty(0, dtype=np.int64)


def _sorted(positions: Positions, values: Floats) -> tuple[Positions, Floats]:
    order = np.argsort(positions, kind="stable")
    return positions[order], values[order]


def put_together(
    tiles: Iterable[Tile], counts: tuple[int, int, int], layers: int, projections: Sequence[str]
) -> tuple[ProjectedDots, dict[str, ProjectedDots]]:
    """All tiles as whole arrays for (pairs, queries, originals); NaN where no tile says anything."""
    exact = _unknown(counts, layers)
    projected = {name: _unknown(counts, layers) for name in projections}
    for tile in tiles:
        _fill(exact, tile, tile)
        for name, whole in projected.items():
            _fill(whole, tile, tile.projected[name])
    return exact, projected


def _unknown(counts: tuple[int, int, int], layers: int) -> ProjectedDots:
    return ProjectedDots(*(np.full((count, layers), np.nan) for count in counts))


def _fill(whole: ProjectedDots, tile: Tile, part: Tile | ProjectedDots) -> None:
    whole.dots[tile.pairs] = part.dots
    whole.query_self_dots[tile.queries] = part.query_self_dots
    whole.original_self_dots[tile.originals] = part.original_self_dots
