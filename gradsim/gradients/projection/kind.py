"""Interface of all kinds of projections."""

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
    """Parameters that determine a layer's projection.

    Attributes:
        shape: shape of the layer.
        dimension: dimension k of the projected gradient.
        key: key of all random numbers.
        nonzeros: non-zeros per column, for sparse kinds.
    """

    shape: tuple[int, ...]
    dimension: int
    key: int
    nonzeros: int = 1

    @property
    def elements(self) -> int:
        """Number of elements n of the layer."""
        return prod(self.shape)


@dataclass(frozen=True)
class Effort:
    """Cost of projecting one layer of one sample.

    Attributes:
        operations: floating-point operations of matrix products.
        moved_bytes: bytes read and written in addition to the matrix products.
    """

    operations: float = 0.0
    moved_bytes: float = 0.0


class LayerProjection(ABC):
    """Projection of one layer: a linear map R with E<Rg, Rg'> = <g, g'>.

    Args:
        sketch: parameters of the projection.
        device: device of the gradients.

    Attributes:
        takes_factors: whether terms are projected without building the gradient.
    """

    takes_factors: ClassVar[bool] = False

    def __init__(self, sketch: LayerSketch, device: torch.device) -> None:
        self.sketch = sketch
        self.device = device

    @classmethod
    def of_shape(cls, shape: tuple[int, ...]) -> type["LayerProjection"]:
        """Return the class that projects layers of this shape: this one, or another that suits the shape better."""
        return cls

    @staticmethod
    def dimension(shape: tuple[int, ...], wanted: int) -> int:
        """Return the largest dimension up to `wanted` that the kind supports for a layer of this shape."""
        return wanted

    @staticmethod
    def why_not_on(device: torch.device) -> str | None:
        """Return why the kind does not run on a device and how to fix that, or None if it runs."""
        return None

    @abstractmethod
    def project(self, gradients: Sequence[Tensor]) -> Tensor:
        """Project B gradients of the layer's shape; return (B, k) in at least float32."""

    def project_term(self, term: Term | RowSum) -> Tensor:
        """Return what one term of a gradient adds to the projected gradient, (k,)."""
        return self.project([term.gradient()])[0]

    @classmethod
    @abstractmethod
    def effort(cls, sketch: LayerSketch) -> Effort:
        """Return the effort of projecting one built gradient."""

    @classmethod
    def term_effort(cls, sketch: LayerSketch, rows: float) -> Effort:
        """Return the effort of projecting one sample's terms with `rows` rows.

        Kinds that take no factors project the built gradient instead.
        """
        return cls.effort(sketch)

    @classmethod
    @abstractmethod
    def nbytes(cls, sketch: LayerSketch, device: torch.device) -> int:
        """Return the bytes that the projection keeps on the device."""

    @classmethod
    def working_bytes(cls, sketch: LayerSketch, device: torch.device) -> int:
        """Return the additional bytes needed while the projection is created or applied."""
        return 0

    @classmethod
    @abstractmethod
    def variance(cls, sketch: LayerSketch, gradient: Tensor, other: Tensor) -> float:
        """Return the variance, over keys, of the projected inner product of two gradients of the layer's shape."""


def sign_variance(gradient: Tensor, other: Tensor) -> float:
    """Return V = q·o + d² - 2 Σ g²g'², with inner product d and self products q and o.

    V / k is the variance of an inner product projected by k x n independent random signs.
    """
    g, h = gradient.double().reshape(-1), other.double().reshape(-1)
    product = g * h
    return float(g.square().sum() * h.square().sum() + product.sum().square() - 2.0 * product.square().sum())
