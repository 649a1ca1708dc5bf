"""Random subset of coordinates."""

from collections.abc import Sequence

import torch
from torch import Tensor

from gradsim.gradients.projection.kind import Effort, LayerProjection, LayerSketch
from gradsim.gradients.projection.randomness import SORTING_BYTES, sample_without_replacement
from gradsim.gradients.rules.arithmetic import wide


class Mask(LayerProjection):
    """Random k of the n coordinates, drawn without replacement and scaled by √(n/k).

    The estimate is unbiased, but its variance is not bounded by the norms: with x = g ⊙ g' it is
    n (n - k)/(k (n - 1)) · (Σ x² - d²/n), about n/k Σ x² if few coordinates dominate the product.
    """

    def __init__(self, sketch: LayerSketch, device: torch.device) -> None:
        super().__init__(sketch, device)
        self._coordinates = sample_without_replacement(sketch.elements, sketch.dimension, sketch.key, device)

    def project(self, gradients: Sequence[Tensor]) -> Tensor:
        """Project B gradients of the layer's shape; return (B, k)."""
        scale = (self.sketch.elements / self.sketch.dimension) ** 0.5
        return torch.stack(
            [wide(gradient).reshape(-1).index_select(0, self._coordinates) * scale for gradient in gradients]
        )

    @classmethod
    def effort(cls, sketch: LayerSketch) -> Effort:
        """Return the effort of reading each index and value and writing the result."""
        return Effort(moved_bytes=sketch.dimension * 16.0)

    @classmethod
    def variance(cls, sketch: LayerSketch, gradient: Tensor, other: Tensor) -> float:
        """Return the variance of a sum sampled without replacement.

        It is n²/k (1 - k/n) times the variance of g ⊙ g' over coordinates.
        """
        n, k = sketch.elements, sketch.dimension
        products = gradient.double().reshape(-1) * other.double().reshape(-1)
        return n**2 / k * (1 - k / n) * float(products.var())

    @classmethod
    def nbytes(cls, sketch: LayerSketch, device: torch.device) -> int:
        """Return the bytes of the coordinates' indices."""
        return sketch.dimension * 8

    @classmethod
    def working_bytes(cls, sketch: LayerSketch, device: torch.device) -> int:
        """Return the bytes needed while the coordinates are drawn."""
        return sketch.elements * SORTING_BYTES
