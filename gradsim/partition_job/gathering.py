"""From the engine's tiles to the tables of a partition."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from gradsim.analysis import gradient_similarity
from gradsim.gradients import ProjectedDots, Projector, Tile
from gradsim.partition_job.inputs import JobInputs, PartitionSlice
from gradsim.tables.provenance import ORIGINAL_LOSS, QUERY_LOSS

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class PartitionTables:
    """What a partition's files hold: table -> rows, and why samples were left out."""

    tables: dict[str, pl.DataFrame]
    excluded: dict[str, str]


class Gathered:
    """All numbers of a job; NaN where nothing came yet, or where a loss was not finite."""

    def __init__(
        self, inputs: JobInputs, layers: Sequence[str], projectors: Sequence[Projector], elements: Mapping[str, int]
    ) -> None:
        """Make room.

        Args:
            inputs: what is compared.
            layers: names of the layers in model order.
            projectors: the projections that are computed beside the exact dots.
            elements: number of each layer's parameters.
        """
        self._inputs = inputs
        self._layers = pl.DataFrame({"layer": layers}, schema={"layer": pl.Enum(layers)})
        self._kinds = {projector.name: projector.kind for projector in projectors}
        self._dimensions = {
            projector.name: sum(projector.layer_dimensions(elements).values()) for projector in projectors
        }
        self._exact = self._room(len(layers))
        self._projected = {projector.name: self._room(len(layers)) for projector in projectors}

    def _room(self, layers: int) -> ProjectedDots:
        sizes = len(self._inputs.pairs), len(self._inputs.queries), len(self._inputs.originals)
        return ProjectedDots(*(np.full((size, layers), np.nan) for size in sizes))

    def add(self, tile: Tile) -> None:
        """Put a tile's numbers where they belong."""
        _put(self._exact, tile, tile.dots, tile.query_self_dots, tile.original_self_dots)
        for name, part in tile.projected.items():
            _put(self._projected[name], tile, part.dots, part.query_self_dots, part.original_self_dots)

    def partition(self, partition: PartitionSlice) -> PartitionTables:
        """The tables of a complete partition. Samples with a bad loss are left out, and queries of such originals."""
        candidates = self._inputs.candidates[partition.pairs]
        pairs = self._inputs.pairs[partition.pairs]
        queries = np.arange(partition.queries.start, partition.queries.stop)
        bad_query = _any_nan(self._exact.query_self_dots)
        bad_original = _any_nan(self._exact.original_self_dots)
        excluded = {self._inputs.queries[query].id: QUERY_LOSS for query in queries[bad_query[queries]]}
        excluded |= {
            self._inputs.originals[each].id: ORIGINAL_LOSS for each in np.unique(pairs[bad_original[pairs[:, 1]], 1])
        }
        kept = np.array([self._inputs.queries[query].id not in excluded for query in queries], dtype=bool)
        kept_pairs = kept[pairs[:, 0] - partition.queries.start] & ~bad_original[pairs[:, 1]]
        rows = _Rows(
            pairs=candidates.filter(kept_pairs).select("query_id", "original_id", "rank"),
            pair_positions=np.arange(partition.pairs.start, partition.pairs.stop)[kept_pairs],
            queries=queries[kept],
            originals=np.unique(pairs[kept_pairs, 1]),
        )
        return PartitionTables(self._tables(rows), excluded)

    def _tables(self, rows: "_Rows") -> dict[str, pl.DataFrame]:
        if rows.pairs.is_empty():
            return {}
        tables = self._long(self._exact, rows)
        tables["gradient_similarity"] = gradient_similarity(**tables)
        if self._projected:
            tables["projected_similarity"] = pl.concat(
                gradient_similarity(**self._long(dots, rows)).with_columns(
                    projection=pl.lit(self._kinds[name]), dimension=pl.lit(self._dimensions[name], pl.Int64)
                )
                for name, dots in self._projected.items()
            )
        return tables

    def _long(self, dots: ProjectedDots, rows: "_Rows") -> dict[str, pl.DataFrame]:
        """Arrays of (samples or pairs, layers) as tables of one row a layer."""
        queries = _ids([self._inputs.queries[query].id for query in rows.queries], "query_id", rows.pairs)
        originals = _ids([self._inputs.originals[each].id for each in rows.originals], "original_id", rows.pairs)
        return {
            "dot_products": self._melted(rows.pairs, "dot", dots.dots[rows.pair_positions]),
            "query_self": self._melted(queries, "self_dot", dots.query_self_dots[rows.queries]),
            "original_self": self._melted(originals, "self_dot", dots.original_self_dots[rows.originals]),
        }

    def _melted(self, keys: pl.DataFrame, name: str, values: Floats) -> pl.DataFrame:
        return keys.join(self._layers, how="cross", maintain_order="left_right").with_columns(
            pl.Series(name, values.ravel())
        )


@dataclass(frozen=True)
class _Rows:
    """What of a job is a partition's and kept: its pairs, and positions of pairs, queries and originals."""

    pairs: pl.DataFrame
    pair_positions: NDArray[np.int64]
    queries: NDArray[np.int64]
    originals: NDArray[np.int64]


def _put(room: ProjectedDots, tile: Tile, dots: Floats, query_self: Floats, original_self: Floats) -> None:
    room.dots[tile.pairs] = dots
    room.query_self_dots[tile.queries] = query_self
    room.original_self_dots[tile.originals] = original_self


def _any_nan(values: Floats) -> NDArray[np.bool_]:
    """Rows, samples, of which any layer's number is missing."""
    return np.asarray(np.isnan(values).any(axis=1))


def _ids(ids: list[str], column: str, like: pl.DataFrame) -> pl.DataFrame:
    return pl.DataFrame({column: ids}, schema={column: like.schema[column]})
