"""Sparse Johnson-Lindenstrauss transform."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gradsim.gradients.projection.kind import Effort, LayerProjection, LayerSketch, sign_variance
from gradsim.gradients.projection.randomness import SORTING_BYTES, random_bits, shifted_right
from gradsim.gradients.rules.arithmetic import segment_sums, wide

# Average number of values per float32 sum above which sums use float64.
_LONGEST_FLOAT32_SUM = 1024


@dataclass(frozen=True, eq=False)
class _Buckets:
    """One non-zero of every column.

    Attributes:
        order: (n,) coordinates, sorted by sign and bucket.
        lengths: (2 * buckets,) number of coordinates of each bucket with sign +, then with sign -.
    """

    order: Tensor
    lengths: Tensor


class Sjlt(LayerProjection):
    """Sparse signs: each coordinate is added to one random bucket in each of s blocks of k/s buckets.

    The variance of a projected inner product d of vectors with self products q and o is (q·o + d² - 2 Σ g²g'²)/k for
    every s that divides k (Kane and Nelson, 2014); a larger s makes large errors rarer. Coordinates are sorted once by
    sign and bucket. Projecting is then a gather followed by sums of runs, which have the same order on every device and
    need no atomic additions.
    """

    def __init__(self, sketch: LayerSketch, device: torch.device) -> None:
        super().__init__(sketch, device)
        self._blocks = [_buckets(sketch, block, buckets, device) for block, buckets in enumerate(_block_sizes(sketch))]
        self._long_sums = sketch.elements * sketch.nonzeros > _LONGEST_FLOAT32_SUM * sketch.dimension

    def project(self, gradients: Sequence[Tensor]) -> Tensor:
        """Project B gradients of the layer's shape; return (B, k)."""
        return torch.stack([self._project(wide(gradient).reshape(-1)) for gradient in gradients])

    def _project(self, gradient: Tensor) -> Tensor:
        blocks = []
        for block in self._blocks:
            values = gradient.index_select(0, block.order)
            if self._long_sums:
                values = values.double()
            plus, minus = segment_sums(values, block.lengths).chunk(2)
            blocks.append(plus - minus)
        projected = torch.cat(blocks) if len(blocks) > 1 else blocks[0]
        if self.sketch.nonzeros > 1:
            projected /= self.sketch.nonzeros**0.5
        return projected.to(gradient.dtype)

    @classmethod
    def effort(cls, sketch: LayerSketch) -> Effort:
        """Return the effort of gathering and summing each non-zero: one index and three value accesses."""
        return Effort(moved_bytes=sketch.nonzeros * sketch.elements * 16.0)

    @classmethod
    def variance(cls, sketch: LayerSketch, gradient: Tensor, other: Tensor) -> float:
        """Return the variance of the mean of s independent estimates.

        Each has the variance V / (number of its buckets), with V from `sign_variance`.
        """
        inverse = sum(1 / buckets for buckets in _block_sizes(sketch))
        return sign_variance(gradient, other) * inverse / sketch.nonzeros**2

    @classmethod
    def nbytes(cls, sketch: LayerSketch, device: torch.device) -> int:
        """Return the bytes of the sorted coordinates and run lengths."""
        coordinates = sketch.nonzeros * sketch.elements
        return coordinates * _index_type(sketch.elements).itemsize + 2 * sketch.dimension * 8

    @classmethod
    def working_bytes(cls, sketch: LayerSketch, device: torch.device) -> int:
        """Return the bytes needed while the coordinates are sorted."""
        return sketch.elements * SORTING_BYTES


def _block_sizes(sketch: LayerSketch) -> Iterator[int]:
    """Yield the number of buckets of each block, as equal as possible."""
    size, larger = divmod(sketch.dimension, sketch.nonzeros)
    for block in range(sketch.nonzeros):
        yield size + (block < larger)


def _buckets(sketch: LayerSketch, block: int, buckets: int, device: torch.device) -> _Buckets:
    slots = signed_buckets(sketch, block, buckets, device)
    order = torch.sort(slots, stable=True).indices
    return _Buckets(order.to(_index_type(sketch.elements)), torch.bincount(slots, minlength=2 * buckets))


def signed_buckets(sketch: LayerSketch, block: int, buckets: int, device: torch.device) -> Tensor:
    """Return the bucket of each coordinate, (n,): [0, buckets) with sign +, [buckets, 2 * buckets) with sign -.

    The upper 32 of a coordinate's random bits, scaled, select the bucket; the lowest bit is the sign.
    """
    bits = random_bits(block * sketch.elements, sketch.elements, sketch.key, device)
    slots = shifted_right(bits, 32).mul_(buckets).bitwise_right_shift_(32)
    return slots.add_(bits.bitwise_and_(1), alpha=buckets)


def _index_type(elements: int) -> torch.dtype:
    return torch.int32 if elements <= torch.iinfo(torch.int32).max else torch.int64
