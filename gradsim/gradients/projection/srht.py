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

# A transform of 2^p values is one product with a Hadamard matrix for every so many of the p bits.
_BITS = 7


class Srht(LayerProjection):
    """√(N/k) S H D: random signs, the orthonormal Hadamard transform of N = 2^p >= n values, k of them at random.

    The variance of a projected inner product is (q·o + d² - 2 Σ g²g'²)/k · (N - k)/(N - 1) (Tropp, 2011, gives the
    tails): a dense projection's, and none for k = N, since rows are drawn without replacement.
    """

    def __init__(self, sketch: LayerSketch, device: torch.device) -> None:
        super().__init__(sketch, device)
        padded = padded_size(sketch.elements)
        count = max(padded, SIGNS_PER_WORD)
        self._signs = random_signs(0, count, sketch.key, device)[: sketch.elements].to(torch.int8)
        self._rows = sample_without_replacement(padded, sketch.dimension, stable_key(sketch.key, "rows"), device)

    def project(self, gradients: Sequence[Tensor]) -> Tensor:
        """B of the layer's shape -> (B, k)."""
        return torch.stack([self._project(wide(gradient).reshape(-1)) for gradient in gradients])

    def _project(self, gradient: Tensor) -> Tensor:
        padded = gradient.new_zeros(padded_size(len(gradient)))
        torch.mul(gradient, self._signs, out=padded[: len(gradient)])
        sampled: Tensor = hadamard(padded).index_select(0, self._rows)
        return sampled.div_(self.sketch.dimension**0.5)

    @classmethod
    def effort(cls, sketch: LayerSketch) -> Effort:
        """A matrix product for every `_BITS` bits, each of which reads and writes all values."""
        padded = padded_size(sketch.elements)
        widths = _widths(padded)
        return Effort(2.0 * padded * sum(widths), 8.0 * padded * (1 + len(widths)))

    @classmethod
    def variance(cls, sketch: LayerSketch, gradient: Tensor, other: Tensor) -> float:
        """V / k · (N - k)/(N - 1), V as of `sign_variance`: the estimates of all N rows add up to the exact product."""
        padded, k = padded_size(sketch.elements), sketch.dimension
        return sign_variance(gradient, other) / k * (padded - k) / (padded - 1)

    @classmethod
    def nbytes(cls, sketch: LayerSketch, device: torch.device) -> int:
        """Signs and rows."""
        return sketch.elements + sketch.dimension * 8

    @classmethod
    def working_bytes(cls, sketch: LayerSketch, device: torch.device) -> int:
        """While rows are drawn; more than the two padded gradients of a transform."""
        return padded_size(sketch.elements) * SORTING_BYTES


def padded_size(elements: int) -> int:
    """The next power of two."""
    return 1 << (elements - 1).bit_length()


def hadamard(values: Tensor) -> Tensor:
    """The Walsh-Hadamard transform of 2^p values, not divided by anything: entries are +1 and -1.

    H of 2^p is the Kronecker product of smaller ones, each of which is multiplied along an axis of its own.
    """
    size = len(values)
    after = size
    for width in _widths(size):
        after //= width
        matrix = hadamard_matrix(width, values.dtype, values.device)
        values = torch.matmul(matrix, values.view(-1, width, after))
    return values.reshape(size)


def hadamard_matrix(size: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """H of 2^p: the entry of row i and column j is -1 to the number of bits that both have."""
    matrix = torch.ones(1, 1, dtype=dtype, device=device)
    while len(matrix) < size:
        matrix = torch.cat([torch.cat([matrix, matrix], dim=1), torch.cat([matrix, -matrix], dim=1)])
    return matrix


def _widths(size: int) -> list[int]:
    """Powers of two whose product is `size`, each of at most `_BITS` bits."""
    bits = size.bit_length() - 1
    return [1 << min(_BITS, bits - done) for done in range(0, bits, _BITS)]
