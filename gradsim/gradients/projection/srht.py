"""Subsampled randomised Hadamard transform."""

from collections.abc import Sequence

import torch
from torch import Tensor

from gradsim.gradients.projection.kind import Effort, LayerProjection, LayerSketch, sign_variance
from gradsim.gradients.projection.randomness import (
    SIGNS_PER_WORD,
    SORTING_BYTES,
    random_signs,
    sample_without_replacement,
    stable_key,
)
from gradsim.gradients.rules.arithmetic import wide

# A transform of 2^p values takes one product with a Hadamard matrix per group of this many of the p bits.
_BITS = 7


class Srht(LayerProjection):
    """√(N/k) S H D: random signs D, orthonormal Hadamard transform H of N = 2^p >= n values, random k of them S.

    The variance of a projected inner product is (q·o + d² - 2 Σ g²g'²)/k · (N - k)/(N - 1); Tropp (2011) gives tail
    bounds. This is the variance of a dense projection, reduced to zero at k = N by sampling without replacement.
    """

    def __init__(self, sketch: LayerSketch, device: torch.device) -> None:
        super().__init__(sketch, device)
        padded = padded_size(sketch.elements)
        count = max(padded, SIGNS_PER_WORD)
        self._signs = random_signs(0, count, sketch.key, device)[: sketch.elements].to(torch.int8)
        self._rows = sample_without_replacement(padded, sketch.dimension, stable_key(sketch.key, "rows"), device)

    def project(self, gradients: Sequence[Tensor]) -> Tensor:
        """Project B gradients of the layer's shape; return (B, k)."""
        return torch.stack([self._project(wide(gradient).reshape(-1)) for gradient in gradients])

    def _project(self, gradient: Tensor) -> Tensor:
        padded = gradient.new_zeros(padded_size(len(gradient)))
        torch.mul(gradient, self._signs, out=padded[: len(gradient)])
        sampled: Tensor = hadamard(padded).index_select(0, self._rows)
        return sampled.div_(self.sketch.dimension**0.5)

    @classmethod
    def effort(cls, sketch: LayerSketch) -> Effort:
        """Return the effort of one matrix product per `_BITS` bits, each reading and writing all values."""
        padded = padded_size(sketch.elements)
        widths = _widths(padded)
        return Effort(2.0 * padded * sum(widths), 8.0 * padded * (1 + len(widths)))

    @classmethod
    def variance(cls, sketch: LayerSketch, gradient: Tensor, other: Tensor) -> float:
        """Return V / k · (N - k)/(N - 1), with V from `sign_variance`.

        The last factor arises because the estimates of all N rows add up to the exact product.
        """
        padded, k = padded_size(sketch.elements), sketch.dimension
        return sign_variance(gradient, other) / k * (padded - k) / (padded - 1)

    @classmethod
    def nbytes(cls, sketch: LayerSketch, device: torch.device) -> int:
        """Return the bytes of the signs and row indices."""
        return sketch.elements + sketch.dimension * 8

    @classmethod
    def working_bytes(cls, sketch: LayerSketch, device: torch.device) -> int:
        """Return the bytes needed while rows are drawn, which exceed those of a transform."""
        return padded_size(sketch.elements) * SORTING_BYTES


def padded_size(elements: int) -> int:
    """Return the smallest power of two that is at least `elements`."""
    return 1 << (elements - 1).bit_length()


def hadamard(values: Tensor) -> Tensor:
    """Return the unnormalized Walsh-Hadamard transform of 2^p values; matrix entries are +1 and -1.

    The matrix is a Kronecker product of smaller Hadamard matrices, each applied along its own axis.
    """
    size = len(values)
    after = size
    for width in _widths(size):
        after //= width
        matrix = hadamard_matrix(width, values.dtype, values.device)
        values = torch.matmul(matrix, values.view(-1, width, after))
    return values.reshape(size)


def hadamard_matrix(size: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return the Hadamard matrix of a power of two; entry (i, j) is -1 to the power of popcount(i & j)."""
    matrix = torch.ones(1, 1, dtype=dtype, device=device)
    while len(matrix) < size:
        matrix = torch.cat([torch.cat([matrix, matrix], dim=1), torch.cat([matrix, -matrix], dim=1)])
    return matrix


def _widths(size: int) -> list[int]:
    """Return powers of two of at most `_BITS` bits that multiply to `size`."""
    bits = size.bit_length() - 1
    return [1 << min(_BITS, bits - done) for done in range(0, bits, _BITS)]
