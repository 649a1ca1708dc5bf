"""How a sample's built gradients and projected vectors lie in one row: padded pieces, one after the other."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gradsim.gradients.projection import Projection
from gradsim.gradients.rules.arithmetic import CHUNK


@dataclass(frozen=True)
class Segment:
    """One layer's part of a row.

    Attributes:
        kind: 0 for the gradient itself, 1 and up for the projections in their order.
        layer: number of the layer.
        shape: of what lies there.
        start: its first element.
        elements: how many there are.
        end: where the next segment starts; the elements between are zero.
    """

    kind: int
    layer: int
    shape: torch.Size
    start: int
    elements: int
    end: int

    def of(self, row: Tensor) -> Tensor:
        """(width,) -> the segment in its own shape, a view."""
        return row[self.start : self.start + self.elements].view(self.shape)


class Layout:
    """The segments of a row.

    Attributes:
        segments: of the layers that are built, then of every projection's layers that are not kept whole.
        width: elements of a row, a multiple of `CHUNK`.
        built: by layer, for those that are built.
        projected: by kind (a projection's place, from 1) and layer, for those that are not kept whole.
    """

    def __init__(
        self, shapes: Mapping[str, torch.Size], built: Sequence[bool], projections: Sequence[Projection]
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
