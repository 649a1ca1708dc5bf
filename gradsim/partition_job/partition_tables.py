"""Convert the numbers of complete queries to the rows of a partition's tables."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from gradsim.analysis.arrays import Floats
from gradsim.analysis.layer_dots import cosine
from gradsim.errors import TableError
from gradsim.partition_job.gathering import Gathered
from gradsim.partition_job.inputs import JobInputs, PartitionSlice
from gradsim.partition_job.study_projections import SizedProjection
from gradsim.tables.provenance import ORIGINAL_LOSS, QUERY_LOSS

# Tables that are written while tiles are computed, because they may be larger than memory.
STREAMED = ("dot_products", "projected_dots")


@dataclass(frozen=True)
class _Kept:
    """Pairs of some queries that were not excluded.

    Attributes:
        pairs: their rows of `candidates`.
        queries: sorted positions of their queries.
        originals: sorted positions of their originals.
        similarities: (methods, pairs).
    """

    pairs: pl.DataFrame
    queries: NDArray[np.int64]
    originals: NDArray[np.int64]
    similarities: Floats


class PartitionTables:
    """Rows of a partition's tables, without samples that have a non-finite loss or gradient.

    Exhaust `streamed` once, then call `others`.

    Attributes:
        excluded: reason by id of each sample that has been excluded so far.
    """

    def __init__(
        self,
        inputs: JobInputs,
        gathered: Gathered,
        partition: PartitionSlice,
        layers: Sequence[str],
        projectors: Sequence[str],
        projections: Sequence[SizedProjection],
    ) -> None:
        self.excluded: dict[str, str] = {}
        self._inputs = inputs
        self._gathered = gathered
        self._partition = partition
        self._layers = pl.DataFrame({"layer": layers}, schema={"layer": pl.Enum(layers)})
        self._projectors = projectors
        self._projections = projections
        self._kept: list[_Kept] = []

    def streamed(self) -> Iterator[dict[str, pl.DataFrame]]:
        """Yield rows of the `STREAMED` tables that were requested, by table name, as queries become complete.

        Raises:
            TableError: an inner product of valid samples is not finite.
        """
        for complete in self._gathered.complete(self._partition.queries):
            pairs, numbers = self._inputs.pairs[complete.pairs], complete.numbers
            kept = self._good_pairs(complete.queries, pairs)
            rows = self._inputs.candidates[complete.pairs].filter(kept)
            self._kept.append(self._with_similarities(rows, pairs[kept], numbers.sums[:, kept]))
            tables = {}
            if numbers.dots is not None:
                tables["dot_products"] = self._melted(rows, "dot", numbers.dots[kept])
            if numbers.projected is not None:
                tables["projected_dots"] = self._projected(rows, "dot", numbers.projected[:, kept])
            yield tables

    def others(self, noise: Collection[str]) -> dict[str, pl.DataFrame]:
        """Return the rows of all other tables by table name; an empty dict if no pair remains.

        Args:
            noise: layers with gradients that are only rounding noise.
        """
        if not any(kept.pairs.height for kept in self._kept):
            return {}
        pairs = pl.concat(kept.pairs for kept in self._kept)
        similarities = np.concatenate([kept.similarities for kept in self._kept], axis=1)
        exact, *projected = (pairs.with_columns(similarity=similarity) for similarity in similarities)
        queries, originals = (
            np.unique(np.concatenate([getattr(kept, side) for kept in self._kept])) for side in ("queries", "originals")
        )
        query_ids, original_ids = self._ids("query", queries), self._ids("original", originals)
        gathered = self._gathered
        tables = {
            "query_self": self._self_rows(
                query_ids, gathered.query_self[queries], gathered.query_losses[queries], noise
            ),
            "original_self": self._self_rows(
                original_ids, gathered.original_self[originals], gathered.original_losses[originals], noise
            ),
            "gradient_similarity": exact,
        }
        if self._projectors:
            of_queries, of_originals = gathered.projected_query_self, gathered.projected_original_self
            tables["projected_query_self"] = self._projected(query_ids, "self_dot", of_queries[:, queries])
            tables["projected_original_self"] = self._projected(original_ids, "self_dot", of_originals[:, originals])
        if projected:
            tables["projected_similarity"] = pl.concat(
                rows.with_columns(projection=pl.lit(each.definition.method), dimension=pl.lit(each.total, pl.Int64))
                for each, rows in zip(self._projections, projected, strict=True)
            )
        return tables

    def _good_pairs(self, queries: range, pairs: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return a mask of the pairs to keep, and record excluded samples.

        A query is also excluded if its source is: both have the same id, and the source is among the candidates.
        """
        positions = np.arange(queries.start, queries.stop)
        bad_original = _any_nan(self._gathered.original_self)
        bad_queries = positions[_any_nan(self._gathered.query_self[positions])]
        bad_originals = np.unique(pairs[bad_original[pairs[:, 1]], 1])
        self.excluded |= {self._inputs.queries[each].id: QUERY_LOSS for each in bad_queries}
        self.excluded |= {self._inputs.originals[each].id: ORIGINAL_LOSS for each in bad_originals}
        kept = np.array([self._inputs.queries[query].id not in self.excluded for query in queries], dtype=bool)
        return np.asarray(kept[pairs[:, 0] - queries.start] & ~bad_original[pairs[:, 1]])

    def _with_similarities(self, rows: pl.DataFrame, pairs: NDArray[np.int64], sums: Floats) -> _Kept:
        for method, pair in np.argwhere(~np.isfinite(sums))[:1]:
            what = ("gradients", *(f"{each.definition.method} projections" for each in self._projections))[method]
            raise TableError(
                f"query {rows['query_id'][int(pair)]!r} and original {rows['original_id'][int(pair)]!r}: the inner "
                f"product of their {what} is {sums[method, pair]}; recompute the partition"
            )
        queries, originals = pairs.T
        similarities = cosine(sums, self._gathered.query_sums[:, queries], self._gathered.original_sums[:, originals])
        return _Kept(rows, np.unique(queries), np.unique(originals), similarities)

    def _ids(self, side: str, positions: NDArray[np.int64]) -> pl.DataFrame:
        """Return the ids of the samples at these positions in one column."""
        samples = self._inputs.queries if side == "query" else self._inputs.originals
        column = f"{side}_id"
        ids = [samples[each].id for each in positions]
        return pl.Series(column, ids, self._inputs.candidates.schema[column]).to_frame()

    def _self_rows(self, keys: pl.DataFrame, self_dots: Floats, losses: Floats, noise: Collection[str]) -> pl.DataFrame:
        rows = self._melted(keys.with_columns(pl.Series("loss", losses)), "self_dot", self_dots)
        is_noise = pl.col("layer").is_in(list(noise))
        return rows.select(keys.columns[0], "layer", "self_dot", "loss", noise=is_noise)

    def _projected(self, keys: pl.DataFrame, name: str, values: Floats) -> pl.DataFrame:
        """Convert (projectors, keys, layers) values to rows, sorted by sample, projector, key and layer."""
        key, place = np.tile(np.arange(keys.height), len(values)), np.repeat(np.arange(len(values)), keys.height)
        # A sample's rows are contiguous, and among them those of each projector.
        order = np.lexsort((place, keys.to_series(0).rle_id().to_numpy()[key]))
        projection = pl.Series("projection", self._projectors, pl.String)[place[order]]
        rows = keys[key[order]].with_columns(projection)
        melted = self._melted(rows, name, values.reshape(-1, values.shape[2])[order])
        return melted.select(pl.exclude("projection"), "projection")

    def _melted(self, keys: pl.DataFrame, name: str, values: Floats) -> pl.DataFrame:
        """Convert (keys, layers) values to one row per key and layer."""
        return keys.join(self._layers, how="cross", maintain_order="left_right").with_columns(
            pl.Series(name, values.ravel())
        )


def _any_nan(values: Floats) -> NDArray[np.bool_]:
    """Return a mask of the rows (samples) with a NaN in any layer."""
    return np.asarray(np.isnan(values).any(axis=1))
