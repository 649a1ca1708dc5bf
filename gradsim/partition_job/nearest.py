"""The stored projected gradients most similar to those of some samples, in one pass over the index."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from gradsim.analysis.arrays import Floats, Positions
from gradsim.analysis.projections import Gram, cosine_variance, inverse_dimensions
from gradsim.progress import Progress
from gradsim.tables.index import IndexFile, StoredVectors

# Elements of stored vectors converted to float32 at a time.
_AT_ONCE = 1 << 22

# Maximum number of products summed in float32; the partial sums are added in float64.
_LONGEST_FLOAT32_SUM = 1 << 14

# Minimum number of stored vectors compared at a time, because each time the queries' vectors are read again.
_VECTORS_AT_ONCE = 64

# Number of dots of single layers that are held at a time.
_DOTS_AT_ONCE = 1 << 23


def nearest_originals(
    queries: NDArray[np.float32],
    files: Sequence[IndexFile],
    top: int,
    *,
    kind: str,
    parameters: Positions,
    weighted: bool = False,
    progress: Progress | None = None,
) -> pl.DataFrame:
    """Return the stored samples with the highest cosine similarity of projected gradients to each query's.

    Args:
        queries: (queries, width) projected gradients, in the layout of the files' headers.
        files: index files of one study, at least one.
        top: number of stored samples per query.
        kind: kind of the projection.
        parameters: (layers,) number of elements of each layer.
        weighted: whether to weight each layer by its dimensions, as published.
        progress: callback that receives the number of stored samples done and the total.

    Returns:
        `query` (a position), `original_id`, `rank`, `similarity` and `standard_error`, sorted by query, then by
        similarity; equal similarities keep the stored order. The standard error estimates the deviation from the
        cosine of the full gradients; it is null for kinds of projection that need more than dots to estimate it.
    """
    header = files[0].header
    dimensions = np.array(list(header.dimensions.values()), dtype=np.float64)
    weights = dimensions if weighted else np.ones_like(dimensions)
    inverse = inverse_dimensions(kind, dimensions, parameters)
    slices = header.layout.slices
    own = np.stack([_squares(queries[:, place]) for place in slices], axis=1)
    none = np.empty((len(queries), 0))
    best = _Hits(none, none, none.astype(np.int64))
    ids: list[str] = []
    total = sum(file.rows for file in files)
    for group in _groups(stored for file in files for stored in file.batches()):
        self_dots = np.concatenate([stored.self_dots for stored in group])
        step = max(1, _DOTS_AT_ONCE // self_dots.size)
        parts = []
        for start in range(0, len(queries), step):
            block = slice(start, start + step)
            gram = Gram(_dots(queries[block], group, slices), own[block, None], self_dots)
            parts.append(_hits(gram, len(ids), top, weights, inverse))
        best = _Hits.joined([best, _Hits.joined(parts, axis=0)], axis=1).best(top)
        ids += [sample for stored in group for sample in stored.ids]
        if progress:
            progress(len(ids), total)
    ranks = np.arange(best.place.shape[1], dtype=np.int32)
    return pl.DataFrame(
        {
            "query": np.repeat(np.arange(len(queries)), len(ranks)),
            "original_id": pl.Series(ids, dtype=pl.String).gather(best.place.ravel()),
            "rank": np.tile(ranks, len(queries)),
            "similarity": best.similarity.ravel(),
            "standard_error": pl.Series(best.error.ravel(), nan_to_null=True),
        }
    )


@dataclass(frozen=True)
class _Hits:
    """Stored samples for each of some queries, (queries, samples) each.

    Attributes:
        similarity: cosine similarity of the projected gradients.
        error: standard error of the similarity; NaN if unknown.
        place: position among all stored samples.
    """

    similarity: Floats
    error: Floats
    place: Positions

    @classmethod
    def joined(cls, hits: Sequence["_Hits"], axis: int) -> "_Hits":
        """Return the hits of other queries (axis 0) or other stored samples (axis 1) as one."""
        return cls(
            np.concatenate([each.similarity for each in hits], axis),
            np.concatenate([each.error for each in hits], axis),
            np.concatenate([each.place for each in hits], axis),
        )

    def best(self, top: int) -> "_Hits":
        """Return the most similar samples of each query in order."""
        order = _order(self.similarity, top)
        similarity, error = (np.take_along_axis(each, order, axis=1) for each in (self.similarity, self.error))
        return _Hits(similarity, error, np.take_along_axis(self.place, order, axis=1))


def _hits(gram: Gram, first: int, top: int, weights: Floats, inverse: Floats | None) -> _Hits:
    """Return the best hits of a block of queries and stored samples.

    Args:
        gram: (queries, samples, layers) dots, (queries, 1, layers) and (samples, layers) self dots.
        first: position of the first of the stored samples.
        top: number of hits per query.
        weights: weight of each layer's dots.
        inverse: variance factor of each layer; None if unknown.
    """
    similarity = gram.cosine(weights)
    order = _order(similarity, top)
    kept = Gram(np.take_along_axis(gram.dots, order[:, :, None], axis=1), gram.query, gram.original[order])
    error = np.full(order.shape, np.nan) if inverse is None else np.sqrt(cosine_variance(kept, weights, inverse))
    return _Hits(np.take_along_axis(similarity, order, axis=1), error, order + first)


def _squares(part: NDArray[np.float32]) -> Floats:
    squares: Floats = np.einsum("qd,qd->q", part, part, dtype=np.float64)
    return squares


def _groups(batches: Iterable[StoredVectors]) -> Iterator[list[StoredVectors]]:
    """Yield successive batches, with at least `_VECTORS_AT_ONCE` rows together but for the last group."""
    group: list[StoredVectors] = []
    for stored in batches:
        group.append(stored)
        if sum(len(each.ids) for each in group) >= _VECTORS_AT_ONCE:
            yield group
            group = []
    if group:
        yield group


def _order(similarity: Floats, top: int) -> Positions:
    """Return the positions of each query's most similar samples, (queries, top); ties keep their order."""
    order: Positions = np.argsort(-similarity, axis=1, kind="stable")[:, :top]
    return order


def _dots(queries: NDArray[np.float32], group: Sequence[StoredVectors], slices: Sequence[slice]) -> Floats:
    """Return (queries, samples, layers) inner products: float32 within chunks, float64 across chunks."""
    scales = np.concatenate([stored.scales for stored in group])
    dots: Floats = np.zeros((len(queries), *scales.shape))
    for layer, place in enumerate(slices):
        step = max(1, min(_LONGEST_FLOAT32_SUM, _AT_ONCE // len(scales)))
        for start in range(place.start, place.stop, step):
            part = slice(start, min(start + step, place.stop))
            rows = np.concatenate([stored.vectors[:, part].astype(np.float32) for stored in group])
            dots[:, :, layer] += queries[:, part] @ rows.T
    dots *= scales
    return dots
