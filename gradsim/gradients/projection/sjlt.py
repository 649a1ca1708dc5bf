"""Sparse Johnson-Lindenstrauss."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gradsim.gradients.projection.kind import Effort, LayerProjection, LayerSketch, sign_variance
from gradsim.gradients.projection.randomness import SORTING_BYTES, random_bits, shifted_right
from gradsim.gradients.rules.arithmetic import segment_sums, wide

# Products that are added up in float32 before float64 takes over.
_LONGEST_FLOAT32_SUM = 1024


@dataclass(frozen=True, eq=False)
class _Buckets:
    """One non-zero of every column.

    Attributes:
        order: (n,) the coordinates, sorted by sign and bucket.
        lengths: (2 * buckets,) how many each bucket gets with sign +, then with sign -.
    """

    order: Tensor
    lengths: Tensor


class Sjlt(LayerProjection):
    """Every coordinate is added, with a random sign, to one random bucket in each of s blocks of k/s buckets.

    The variance of a projected inner product d of vectors with self products q and o is (q·o + d² - 2 Σ g²g'²)/k for
    every s that divides k (Kane and Nelson, 2014); a larger s makes large errors rarer. The coordinates are sorted by
    sign and bucket once, so that projecting is a gather and sums of runs, in the same order on every device, without
    atomic additions.
    """

    def __init__(self, sketch: LayerSketch, device: torch.device) -> None:
        super().__init__(sketch, device)
        self._blocks = [_buckets(sketch, block, buckets, device) for block, buckets in enumerate(_block_sizes(sketch))]
        self._long_sums = sketch.elements * sketch.nonzeros > _LONGEST_FLOAT32_SUM * sketch.dimension

    def project(self, gradients: Sequence[Tensor]) -> Tensor:
        """B of the layer's shape -> (B, k)."""
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
        """Every non-zero: a coordinate's place, its value read and written, and read once more."""
        return Effort(moved_bytes=sketch.nonzeros * sketch.elements * 16.0)

    @classmethod
    def variance(cls, sketch: LayerSketch, gradient: Tensor, other: Tensor) -> float:
        """The mean of s independent estimates, each of V / (its buckets), V as of `sign_variance`."""
        inverse = sum(1 / buckets for buckets in _block_sizes(sketch))
        return sign_variance(gradient, other) * inverse / sketch.nonzeros**2

    @classmethod
    def nbytes(cls, sketch: LayerSketch, device: torch.device) -> int:
        """The sorted coordinates and the lengths of the runs."""
        coordinates = sketch.nonzeros * sketch.elements
        return coordinates * _index_type(sketch.elements).itemsize + 2 * sketch.dimension * 8

    @classmethod
    def working_bytes(cls, sketch: LayerSketch, device: torch.device) -> int:
        """While the coordinates are sorted."""
        return sketch.elements * SORTING_BYTES


def _block_sizes(sketch: LayerSketch) -> Iterator[int]:
    """Buckets of each block, as equal as can be."""
    size, larger = divmod(sketch.dimension, sketch.nonzeros)
    for block in range(sketch.nonzeros):
        yield size + (block < larger)


def _buckets(sketch: LayerSketch, block: int, buckets: int, device: torch.device) -> _Buckets:
    slots = signed_buckets(sketch, block, buckets, device)
    order = torch.sort(slots, stable=True).indices
    return _Buckets(order.to(_index_type(sketch.elements)), torch.bincount(slots, minlength=2 * buckets))


def signed_buckets(sketch: LayerSketch, block: int, buckets: int, device: torch.device) -> Tensor:
    """(n,) each coordinate's bucket, in [0, buckets) with sign +, in [buckets, 2 * buckets) with sign -.

    Of a coordinate's random bits the upper 32, scaled, are the bucket; the lowest is the sign.
    """
    bits = random_bits(block * sketch.elements, sketch.elements, sketch.key, device)
    slots = shifted_right(bits, 32).mul_(buckets).bitwise_right_shift_(32)
    return slots.add_(bits.bitwise_and_(1), alpha=buckets)


def _index_type(elements: int) -> torch.dtype:
    return torch.int32 if elements <= torch.iinfo(torch.int32).max else torch.int64
