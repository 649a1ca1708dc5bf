"""How the layers of a projected gradient lie in one vector."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import accumulate, pairwise


@dataclass(frozen=True)
class VectorLayout:
    """Where each layer lies in a projected vector: one after the other, those that are kept whole too.

    Attributes:
        layers: names, in model order.
        ends: (layers + 1,) where each begins, and where the last one ends.
    """

    layers: tuple[str, ...]
    ends: tuple[int, ...]

    @classmethod
    def of(cls, dimensions: Mapping[str, int]) -> "VectorLayout":
        """For layers of these dimensions."""
        return cls(tuple(dimensions), (0, *accumulate(dimensions.values())))

    @property
    def width(self) -> int:
        """Elements of a vector."""
        return self.ends[-1]

    @property
    def slices(self) -> list[slice]:
        """Of each layer."""
        return [slice(start, end) for start, end in pairwise(self.ends)]
