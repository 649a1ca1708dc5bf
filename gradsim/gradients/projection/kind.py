"""What every kind of projection offers."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import ClassVar

import torch
from torch import Tensor

from gradsim.gradients.rules.terms import RowSum, Term


@dataclass(frozen=True)
class LayerSketch:
    """What a layer's projection follows from, and nothing else.

    Attributes:
        shape: of the layer.
        dimension: k, of the projected gradient.
        key: from which everything random follows.
        nonzeros: of each column, for kinds that are sparse.
    """

    shape: tuple[int, ...]
    dimension: int
    key: int
    nonzeros: int = 1

    @property
    def elements(self) -> int:
        """n, of the layer."""
        return prod(self.shape)


@dataclass(frozen=True)
class Effort:
    """What it takes to project one sample's layer.

    Attributes:
        operations: floating-point operations of matrix products.
        moved_bytes: that are read and written beside them.
    """

    operations: float = 0.0
    moved_bytes: float = 0.0


class LayerProjection(ABC):
    """A projection of one layer: a linear R with E<Rg, Rg'> = <g, g'>.

    Args:
        sketch: what it follows from.
        device: on which gradients lie.

    Attributes:
        takes_factors: whether terms are projected without building the gradient.
    """

    takes_factors: ClassVar[bool] = False

    def __init__(self, sketch: LayerSketch, device: torch.device) -> None:
        self.sketch = sketch
        self.device = device

    @classmethod
    def of_shape(cls, shape: tuple[int, ...]) -> type["LayerProjection"]:
        """The kind that projects layers of this shape: itself, or another that does it better."""
        return cls

    @staticmethod
    def dimension(shape: tuple[int, ...], wanted: int) -> int:
        """The largest dimension that the kind has for a layer of this shape and that is not larger than `wanted`."""
        return wanted

    @staticmethod
    def why_not_on(device: torch.device) -> str | None:
        """Why the kind does not run on a device, and how to mend that; None: it does."""
        return None

    @abstractmethod
    def project(self, gradients: Sequence[Tensor]) -> Tensor:
        """B gradients, each of the layer's shape -> (B, k) in at least float32."""

    def project_term(self, term: Term | RowSum) -> Tensor:
        """One term of a gradient -> (k,): what it adds to the projected gradient."""
        return self.project([term.gradient()])[0]

    @classmethod
    @abstractmethod
    def effort(cls, sketch: LayerSketch) -> Effort:
        """Of one gradient."""

    @classmethod
    def term_effort(cls, sketch: LayerSketch, rows: float) -> Effort:
        """Of one sample's terms with so many rows; of a kind that takes no factors, once the gradient is built."""
        return cls.effort(sketch)

    @classmethod
    @abstractmethod
    def nbytes(cls, sketch: LayerSketch, device: torch.device) -> int:
        """Bytes that the projection keeps on the device."""

    @classmethod
    def working_bytes(cls, sketch: LayerSketch, device: torch.device) -> int:
        """Bytes that it needs besides while it is made or works."""
        return 0

    @classmethod
    @abstractmethod
    def variance(cls, sketch: LayerSketch, gradient: Tensor, other: Tensor) -> float:
        """Of the projected inner product of two gradients of the layer's shape, over keys."""


def sign_variance(gradient: Tensor, other: Tensor) -> float:
    """V = q·o + d² - 2 Σ g²g'²: k times the variance of an inner product under k x n independent random signs."""
    g, h = gradient.double().reshape(-1), other.double().reshape(-1)
    product = g * h
    return float(g.square().sum() * h.square().sum() + product.sum().square() - 2.0 * product.square().sum())
