"""Dense projection with random signs."""

from collections.abc import Sequence

import torch
from torch import Tensor

from gradsim.gradients.projection.kind import Effort, LayerProjection, LayerSketch, sign_variance
from gradsim.gradients.projection.randomness import SIGNS_PER_WORD, random_signs
from gradsim.gradients.rules.arithmetic import wide

# Signs in memory at once, and signs per row of them: each partial sum in float32 spans at most `_COLUMNS` elements.
_SIGNS = {"cpu": 1 << 18}
_SIGNS_ON_ACCELERATOR = 1 << 24
_COLUMNS = 1 << 12


class Rademacher(LayerProjection):
    """Dense k x n random signs, divided by √k and generated again on each use.

    The variance of a projected inner product is (q·o + d² - 2 Σ g²g'²)/k (Achlioptas, 2003). Projecting takes 2 k n
    operations per sample, and generates k n signs per call for all its samples.
    """

    def project(self, gradients: Sequence[Tensor]) -> Tensor:
        """Project B gradients of the layer's shape; return (B, k)."""
        values = [gradient.reshape(-1) for gradient in gradients]
        elements, dimension = self.sketch.elements, self.sketch.dimension
        found = torch.zeros(len(values), dimension, dtype=torch.float64, device=self.device)
        at_once = max(1, _SIGNS.get(self.device.type, _SIGNS_ON_ACCELERATOR) // _COLUMNS)
        for start in range(0, elements, _COLUMNS):
            piece = wide(torch.stack([value[start : start + _COLUMNS] for value in values]))
            for first in range(0, dimension, at_once):
                signs = self._signs(start, piece.shape[1], first, min(at_once, dimension - first))
                found[:, first : first + at_once] += piece @ signs.to(piece.dtype).T
        return found.div_(dimension**0.5).to(wide(values[0][:0]).dtype)

    def _signs(self, start: int, columns: int, first: int, rows: int) -> Tensor:
        """Return the signs (rows, columns) of R from row `first` and column `start`.

        The signs are numbered in strips of `_COLUMNS` columns.
        """
        width = min(_COLUMNS, -(-(self.sketch.elements - start) // SIGNS_PER_WORD) * SIGNS_PER_WORD)
        begin = start * self.sketch.dimension + first * width
        return random_signs(begin, rows * width, self.sketch.key, self.device).view(rows, width)[:, :columns]

    @classmethod
    def effort(cls, sketch: LayerSketch) -> Effort:
        """Return the effort of the product, and of writing and reading the signs in float32."""
        products = float(sketch.dimension) * sketch.elements
        return Effort(2.0 * products, 8.0 * products)

    @classmethod
    def variance(cls, sketch: LayerSketch, gradient: Tensor, other: Tensor) -> float:
        """Return V / k, with V from `sign_variance`."""
        return sign_variance(gradient, other) / sketch.dimension

    @classmethod
    def nbytes(cls, sketch: LayerSketch, device: torch.device) -> int:
        """Return 0, because nothing is kept."""
        return 0

    @classmethod
    def working_bytes(cls, sketch: LayerSketch, device: torch.device) -> int:
        """Return the bytes of the signs, of their lookup indices, and of a float64 copy."""
        at_once = min(_SIGNS.get(device.type, _SIGNS_ON_ACCELERATOR), sketch.dimension * _COLUMNS)
        return 16 * at_once
