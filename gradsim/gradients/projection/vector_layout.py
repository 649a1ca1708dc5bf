"""Layout of a projected gradient's layers in one vector."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import accumulate, pairwise


@dataclass(frozen=True)
class VectorLayout:
    """Consecutive positions of all layers in a projected vector, including layers that are not projected.

    Attributes:
        layers: layer names, in model order.
        ends: (layers + 1,) offset of each layer, followed by the width of the vector.
    """

    layers: tuple[str, ...]
    ends: tuple[int, ...]

    @classmethod
    def of(cls, dimensions: Mapping[str, int]) -> "VectorLayout":
        """Return the layout of layers with the given dimensions."""
        return cls(tuple(dimensions), (0, *accumulate(dimensions.values())))

    @property
    def width(self) -> int:
        """Number of elements of a vector."""
        return self.ends[-1]

    @property
    def slices(self) -> list[slice]:
        """Slice of each layer."""
        return [slice(start, end) for start, end in pairwise(self.ends)]
