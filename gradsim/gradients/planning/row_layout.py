"""Layout of a sample's built gradients and projected vectors in one row of consecutive, padded segments."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gradsim.gradients.projection import ModelProjection
from gradsim.gradients.rules.arithmetic import CHUNK


@dataclass(frozen=True)
class Segment:
    """One layer's segment of a row.

    Attributes:
        kind: 0 for the gradient itself; i for the i-th projection, counted from 1.
        layer: index of the layer.
        shape: shape of the stored gradient or vector.
        start: offset of the first element in the row.
        elements: number of elements, without padding.
        end: offset of the next segment; the padding up to it is zero.
    """

    kind: int
    layer: int
    shape: torch.Size
    start: int
    elements: int
    end: int

    def of(self, row: Tensor) -> Tensor:
        """Return the segment of a row (width,) as a view in its own shape."""
        return row[self.start : self.start + self.elements].view(self.shape)


class Layout:
    """Segments of a row.

    Args:
        shapes: layer shapes by name.
        built: whether each layer's gradient is built.
        projections: projections whose vectors are stored in the row.

    Attributes:
        segments: segments of the built layers, followed by those of each projection's projected layers.
        width: number of elements in a row, a multiple of `CHUNK`.
        built: segments of the built gradients, by layer index.
        projected: segments of the projected vectors, by (kind, layer index).
    """

    def __init__(
        self, shapes: Mapping[str, torch.Size], built: Sequence[bool], projections: Sequence[ModelProjection]
    ) -> None:
        self.segments: list[Segment] = []
        self.width = 0
        for layer, (shape, build) in enumerate(zip(shapes.values(), built, strict=True)):
            if build:
                self._append(0, layer, shape)
        for kind, projection in enumerate(projections, start=1):
            for layer, name in enumerate(shapes):
                if not projection.keeps_whole(name):
                    self._append(kind, layer, torch.Size([projection.dimensions[name]]))
        self.built = {segment.layer: segment for segment in self.segments if segment.kind == 0}
        self.projected = {(segment.kind, segment.layer): segment for segment in self.segments if segment.kind > 0}

    def _append(self, kind: int, layer: int, shape: torch.Size) -> None:
        elements = shape.numel()
        end = self.width + -(-elements // CHUNK) * CHUNK
        self.segments.append(Segment(kind, layer, shape, self.width, elements, end))
        self.width = end
