"""Projectors at work on a model's layers."""

from collections.abc import Mapping, Sequence
from math import prod

import torch
from torch import Tensor

from gradsim.errors import GradientError
from gradsim.gradients.capture.precision import plain_arithmetic
from gradsim.gradients.projection.kind import Effort, LayerProjection
from gradsim.gradients.projection.projector import Projector
from gradsim.gradients.projection.registry import KINDS
from gradsim.gradients.rules.terms import RowSum, Term


class Projection:
    """A projector at work; each layer's projection is made once, when it is first needed.

    Args:
        projector: what is wanted.
        shapes: of the layers, by name.
        device: on which gradients lie.

    Attributes:
        name: of the projector.
        dimensions: of each layer.

    Raises:
        GradientError: the projector does not fit the layers or the device.
    """

    def __init__(self, projector: Projector, shapes: Mapping[str, Sequence[int]], device: torch.device) -> None:
        self.name = projector.name
        self.dimensions = projector.layer_dimensions(shapes)
        kind = KINDS[projector.kind]
        if why := kind.why_not_on(device):
            raise GradientError(f"projector {self.name!r}: {why}")
        self._sketches = {
            layer: projector.sketch(layer, shapes[layer], k)
            for layer, k in self.dimensions.items()
            if k < prod(shapes[layer])
        }
        self._kinds = {layer: kind.of_shape(sketch.shape) for layer, sketch in self._sketches.items()}
        self._device = device
        self._made: dict[str, LayerProjection] = {}

    @property
    def nbytes(self) -> int:
        """Bytes of all layers' projections on the device, and of the largest at work."""
        sketches = self._sketches.items()
        kept = sum(self._kinds[layer].nbytes(sketch, self._device) for layer, sketch in sketches)
        working = (self._kinds[layer].working_bytes(sketch, self._device) for layer, sketch in sketches)
        return kept + max(working, default=0)

    def keeps_whole(self, layer: str) -> bool:
        """Whether a layer is not projected, so that its dots are the exact ones."""
        return layer not in self._sketches

    def takes_factors(self, layer: str) -> bool:
        """Whether a layer that is not kept whole is projected without building its gradient."""
        return self._kinds[layer].takes_factors

    def project(self, layer: str, gradients: Sequence[Tensor]) -> Tensor:
        """B gradients of a layer that is not kept whole -> (B, k)."""
        return self._of(layer).project(gradients)

    def project_term(self, layer: str, term: Term | RowSum) -> Tensor:
        """A term of a layer that is not kept whole -> (k,), what it adds to the projected gradient.

        Factors are multiplied as the pass multiplies (TF32 where it does), gradients are projected in full float32.
        """
        if self.takes_factors(layer):
            return self._of(layer).project_term(term)
        with plain_arithmetic(self._device), torch.no_grad():
            return self._of(layer).project_term(term)

    def effort(self, layer: str) -> Effort:
        """Of projecting one built gradient of a layer that is not kept whole."""
        return self._kinds[layer].effort(self._sketches[layer])

    def term_effort(self, layer: str, rows: float) -> Effort:
        """Of projecting one sample's terms with so many rows, of a layer whose factors are taken."""
        return self._kinds[layer].term_effort(self._sketches[layer], rows)

    def _of(self, layer: str) -> LayerProjection:
        if layer not in self._made:
            self._made[layer] = self._kinds[layer](self._sketches[layer], self._device)
        return self._made[layer]


def make_projections(
    projectors: Sequence[Projector], shapes: Mapping[str, Sequence[int]], device: torch.device
) -> list[Projection]:
    """Projectors for a model with layers of these shapes.

    Raises:
        GradientError: two of one name, or one that does not fit the layers or the device.
    """
    names = [projector.name for projector in projectors]
    for place, name in enumerate(names):
        if name in names[:place]:
            raise GradientError(f"two projectors have the name {name!r}: name each differently")
    return [Projection(projector, shapes, device) for projector in projectors]
