"""Projections of a model's layers."""

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


class ModelProjection:
    """Projection of a model's layers; each layer's projection is created on first use and then kept.

    Args:
        projector: configuration of the projection.
        shapes: layer shapes by name.
        device: device of the gradients.

    Attributes:
        name: name of the projector.
        dimensions: dimension of each layer.

    Raises:
        GradientError: The projector does not support the layers or the device.
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
        """Bytes of all layers' projections on the device, plus the largest working memory."""
        sketches = self._sketches.items()
        kept = sum(self._kinds[layer].nbytes(sketch, self._device) for layer, sketch in sketches)
        working = (self._kinds[layer].working_bytes(sketch, self._device) for layer, sketch in sketches)
        return kept + max(working, default=0)

    def keeps_whole(self, layer: str) -> bool:
        """Return whether a layer is not projected, so that its dots are exact."""
        return layer not in self._sketches

    def takes_factors(self, layer: str) -> bool:
        """Return whether a projected layer uses factors instead of the built gradient."""
        return self._kinds[layer].takes_factors

    def project(self, layer: str, gradients: Sequence[Tensor]) -> Tensor:
        """Project B gradients of a projected layer; return (B, k)."""
        return self._of(layer).project(gradients)

    def project_term(self, layer: str, term: Term | RowSum) -> Tensor:
        """Return what a term adds to the projected gradient of a projected layer, (k,).

        Factors are multiplied in the precision of the pass, which may be TF32; gradients are projected in full float32.
        """
        if self.takes_factors(layer):
            return self._of(layer).project_term(term)
        with plain_arithmetic(self._device), torch.no_grad():
            return self._of(layer).project_term(term)

    def effort(self, layer: str) -> Effort:
        """Return the effort of projecting one built gradient of a projected layer."""
        return self._kinds[layer].effort(self._sketches[layer])

    def term_effort(self, layer: str, rows: float) -> Effort:
        """Return the effort of projecting one sample's terms with `rows` rows, in a layer projected from factors."""
        return self._kinds[layer].term_effort(self._sketches[layer], rows)

    def _of(self, layer: str) -> LayerProjection:
        if layer not in self._made:
            self._made[layer] = self._kinds[layer](self._sketches[layer], self._device)
        return self._made[layer]


def make_projections(
    projectors: Sequence[Projector], shapes: Mapping[str, Sequence[int]], device: torch.device
) -> list[ModelProjection]:
    """Return the projections of a model's layers.

    Args:
        projectors: configurations of the projections.
        shapes: layer shapes by name.
        device: device of the gradients.

    Raises:
        GradientError: Two projectors have the same name, or one does not support the layers or the device.
    """
    names = [projector.name for projector in projectors]
    for place, name in enumerate(names):
        if name in names[:place]:
            raise GradientError(f"two projectors are named {name!r}: give each its own name")
    return [ModelProjection(projector, shapes, device) for projector in projectors]
