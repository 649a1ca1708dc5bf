"""Tile building: collects values on the device, then copies them to the host as one tile."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from gradsim.gradients.capture.encoding import Nodes
from gradsim.gradients.results import Floats, Positions, ProjectedDots, Tile

# Pairs per tile: few, so that finished queries can be written early.
_PAIRS = 256


class TileBuilder:
    """Collector of the dots of pairs and the self dots of nodes, each of shape (..., 1 + projections, layers)."""

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
        self._losses: list[float] = []

    @property
    def is_full(self) -> bool:
        """Whether enough pairs were added for a tile."""
        return self._count >= _PAIRS

    def add_pairs(self, pairs: Positions, values: Tensor) -> None:
        """Add dots of pairs, (pairs, 1 + projections, layers)."""
        self._pairs.append(pairs)
        self._dots.append(values)
        self._count += len(pairs)

    def add_self(self, node: int, values: Tensor, loss: float) -> None:
        """Add the self dots and the mean loss of a node."""
        self._selves.append(node)
        self._self_dots.append(values)
        self._losses.append(loss)

    def build(self, queries_done: int) -> Tile:
        """Return a tile with everything added since the last one."""
        pairs, dots = _sorted(np.concatenate([_NONE, *self._pairs]), self._host(self._dots))
        self_dots = self._host([values[None] for values in self._self_dots])
        queries, query_nodes = self._known(self._nodes.queries)
        originals, original_nodes = self._known(self._nodes.originals)
        query_dots, original_dots = self_dots[query_nodes], self_dots[original_nodes]
        losses = np.array(self._losses)
        self._clear()
        return Tile(
            pairs=pairs,
            dots=dots[:, 0],
            queries=queries,
            query_self_dots=query_dots[:, 0],
            query_losses=losses[query_nodes],
            originals=originals,
            original_self_dots=original_dots[:, 0],
            original_losses=losses[original_nodes],
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

    def _known(self, group: Positions) -> tuple[Positions, Positions]:
        """Return the positions in `group` of all added nodes, ascending, and the index of each in the order added."""
        found = [np.flatnonzero(group == node) for node in self._selves]
        places = np.repeat(np.arange(len(found)), [len(positions) for positions in found])
        positions = np.concatenate([_NONE, *found])
        order = np.argsort(positions, kind="stable")
        return positions[order], places[order]


_NONE = np.empty(0, dtype=np.int64)


def _sorted(positions: Positions, values: Floats) -> tuple[Positions, Floats]:
    order = np.argsort(positions, kind="stable")
    return positions[order], values[order]


@dataclass(frozen=True)
class Whole:
    """All tiles of a comparison as whole arrays, with NaN for values that no tile contains."""

    exact: ProjectedDots
    query_losses: Floats
    original_losses: Floats
    projected: dict[str, ProjectedDots]


def put_together(tiles: Iterable[Tile], counts: tuple[int, int, int], layers: int, projections: Sequence[str]) -> Whole:
    """Assemble tiles into whole arrays.

    Args:
        tiles: tiles of one comparison.
        counts: number of pairs, queries and originals.
        layers: number of layers.
        projections: projector names.
    """
    _, queries, originals = counts
    whole = Whole(
        exact=_unknown(counts, layers),
        query_losses=np.full(queries, np.nan),
        original_losses=np.full(originals, np.nan),
        projected={name: _unknown(counts, layers) for name in projections},
    )
    for tile in tiles:
        _fill(whole.exact, tile, tile)
        whole.query_losses[tile.queries] = tile.query_losses
        whole.original_losses[tile.originals] = tile.original_losses
        for name, projected in whole.projected.items():
            _fill(projected, tile, tile.projected[name])
    return whole


def _unknown(counts: tuple[int, int, int], layers: int) -> ProjectedDots:
    return ProjectedDots(*(np.full((count, layers), np.nan) for count in counts))


def _fill(whole: ProjectedDots, tile: Tile, part: Tile | ProjectedDots) -> None:
    whole.dots[tile.pairs] = part.dots
    whole.query_self_dots[tile.queries] = part.query_self_dots
    whole.original_self_dots[tile.originals] = part.original_self_dots
