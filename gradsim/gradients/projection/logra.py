"""Kronecker products of two small projections, applied to a gradient's factors."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isqrt, prod

import torch
from torch import Tensor

from gradsim.gradients.projection.kind import Effort, LayerProjection, LayerSketch
from gradsim.gradients.projection.randomness import sign_matrix, stable_key
from gradsim.gradients.projection.sjlt import Sjlt
from gradsim.gradients.rules.arithmetic import wide
from gradsim.gradients.rules.terms import ExpertOuter, Outer, RowSum, Term, TokenRows


@dataclass(frozen=True)
class Sides:
    """A gradient's two sides, R x C, and the dimensions that they are projected to; equal ones are kept whole."""

    rows: int
    columns: int
    a: int
    b: int

    @classmethod
    def of(cls, shape: tuple[int, ...], dimension: int) -> "Sides":
        """Dimensions a and b as equal as can be, a·b at most k; all but the last axis of a stack are rows."""
        rows, columns = prod(shape[:-1]), shape[-1]
        less = min(rows, columns, isqrt(dimension))
        more = min(max(rows, columns), dimension // less)
        return cls(rows, columns, *((less, more) if rows <= columns else (more, less)))

    @property
    def left(self) -> int:
        """Elements of A."""
        return self.rows * self.a if self.a < self.rows else 0

    @property
    def right(self) -> int:
        """Elements of B."""
        return self.columns * self.b if self.b < self.columns else 0

    @property
    def left_first(self) -> float:
        """Multiplications of (A G) Bᵀ."""
        return float(self.left) * self.columns + float(self.right) * self.a

    @property
    def right_first(self) -> float:
        """Multiplications of A (G Bᵀ)."""
        return float(self.right) * self.rows + float(self.left) * self.b


class Logra(LayerProjection):
    """A G Bᵀ of a gradient G (R x C), with random signs A (a x R) / √a and B (b x C) / √b; k = a·b (Choe et al., 2024).

    On factors no gradient is built: an outer product r cᵀ becomes (A r)(B c)ᵀ, and a row of an embedding looks its
    column of A up. Vectors are projected by `Sjlt`.

    Unbiased, but without a bound of 1/k: the variance of a projected inner product is, but for terms of single
    elements,

        (‖GᵀG'‖² + tr (GᵀG')²)/b + (‖GG'ᵀ‖² + tr (GG'ᵀ)²)/a + (q·o + d² + <GᵀG, G'ᵀG'> + <GGᵀ, G'G'ᵀ>)/(a·b),

    which for gradients of rank one is of the order of 1/a + 1/b. A term is not there for a side that is kept whole.
    """

    takes_factors = True

    def __init__(self, sketch: LayerSketch, device: torch.device) -> None:
        super().__init__(sketch, device)
        sides = Sides.of(sketch.shape, sketch.dimension)
        self._sides = sides
        self._left = sign_matrix(sides.rows, sides.a, stable_key(sketch.key, "left"), device) if sides.left else None
        self._right = (
            sign_matrix(sides.columns, sides.b, stable_key(sketch.key, "right"), device) if sides.right else None
        )
        self._scale = (sides.a if sides.left else 1) ** -0.5 * (sides.b if sides.right else 1) ** -0.5

    @classmethod
    def of_shape(cls, shape: tuple[int, ...]) -> type[LayerProjection]:
        """Vectors have one side."""
        return cls if len(shape) > 1 else Sjlt

    @staticmethod
    def dimension(shape: tuple[int, ...], wanted: int) -> int:
        """The product of both sides' dimensions."""
        sides = Sides.of(shape, wanted)
        return sides.a * sides.b

    def project(self, gradients: Sequence[Tensor]) -> Tensor:
        """B of the layer's shape -> (B, k)."""
        return torch.stack([self._project(wide(gradient)).reshape(-1) for gradient in gradients]).mul_(self._scale)

    def _project(self, gradient: Tensor) -> Tensor:
        """A G Bᵀ, (a, b): first the side that costs less."""
        values = gradient.reshape(self._sides.rows, self._sides.columns)
        if self._sides.left_first <= self._sides.right_first:
            return self._onto_right(self._onto_left(values.T).T)
        return self._onto_left(self._onto_right(values).T).T

    def project_term(self, term: Term | RowSum) -> Tensor:
        """From factors, without the gradient: (k,)."""
        match term:
            case Outer(rows, columns):
                left, right = self._onto_left(wide(rows)), wide(columns)
            case TokenRows(tokens, rows) if self._left is not None:
                left, right = self._left.index_select(0, tokens).to(wide(rows).dtype), wide(rows)
            case ExpertOuter() if self._left is not None:
                rows, right = map(wide, term.factors())
                left = _of_blocks(rows, self._left.view(len(term.counts), rows.shape[1], -1), term.blocks())
            case _:
                return super().project_term(term)
        projected: Tensor = left.T @ self._onto_right(right)
        return projected.reshape(-1).mul_(self._scale)

    def _onto_left(self, rows: Tensor) -> Tensor:
        """(T, R) -> (T, a)."""
        if self._left is None:
            return rows
        self._left = self._left.to(rows.dtype)  # a copy once, should a comparison run in float64
        return rows @ self._left

    def _onto_right(self, columns: Tensor) -> Tensor:
        """(T, C) -> (T, b)."""
        if self._right is None:
            return columns
        self._right = self._right.to(columns.dtype)
        return columns @ self._right

    @classmethod
    def effort(cls, sketch: LayerSketch) -> Effort:
        """Two products, in the cheaper order."""
        sides = Sides.of(sketch.shape, sketch.dimension)
        return Effort(2.0 * min(sides.left_first, sides.right_first))

    @classmethod
    def term_effort(cls, sketch: LayerSketch, rows: float) -> Effort:
        """Both factors projected, and multiplied: T (R a + C b + a b) products, less those of sides kept whole.

        A row of a stack is of one of its layers.
        """
        sides = Sides.of(sketch.shape, sketch.dimension)
        layers = prod(sketch.shape[:-2])
        return Effort(2.0 * rows * (sides.left / layers + sides.right + sides.a * sides.b))

    @classmethod
    def variance(cls, sketch: LayerSketch, gradient: Tensor, other: Tensor) -> float:
        """As of `kronecker_variance`."""
        sides = Sides.of(sketch.shape, sketch.dimension)
        g, h = (each.reshape(sides.rows, sides.columns) for each in (gradient, other))
        return kronecker_variance(g, h, 1 / sides.a if sides.left else 0.0, 1 / sides.b if sides.right else 0.0)

    @classmethod
    def nbytes(cls, sketch: LayerSketch, device: torch.device) -> int:
        """A and B, in float32."""
        sides = Sides.of(sketch.shape, sketch.dimension)
        return 4 * (sides.left + sides.right)

    @classmethod
    def working_bytes(cls, sketch: LayerSketch, device: torch.device) -> int:
        """A gradient in float32, where its own format is shorter."""
        return 4 * sketch.elements


def kronecker_variance(g: Tensor, h: Tensor, left: float, right: float) -> float:
    """Exact variance of <A G Bᵀ, A H Bᵀ> over random signs.

    With S = AᵀA, E[S_ij S_kl] = δ_ij δ_kl + (δ_ik δ_jl + δ_il δ_jk - 2 δ_ijkl)/a, and the same for B: the products of
    all terms but the first, summed over G and H.

    Args:
        g: (R, C), the one gradient.
        h: (R, C), the other.
        left: 1/a; zero for a side that is kept whole.
        right: 1/b, likewise.
    """
    g, h = g.double(), h.double()
    rows, columns, product = g @ h.T, g.T @ h, g * h
    q, o, d = g.square().sum(), h.square().sum(), product.sum()
    of_left = rows.square().sum() + (rows * rows.T).sum() - 2.0 * rows.diagonal().square().sum()
    of_right = columns.square().sum() + (columns * columns.T).sum() - 2.0 * columns.diagonal().square().sum()
    both = q * o + d.square() + ((g @ g.T) * (h @ h.T)).sum() + ((g.T @ g) * (h.T @ h)).sum()
    for axis, diagonal in ((1, rows.diagonal()), (0, columns.diagonal())):
        alone = (g.square().sum(axis) * h.square().sum(axis)).sum()
        both = both - 2.0 * (alone + diagonal.square().sum())
    both = both + 4.0 * product.square().sum()
    return float(left * of_left + right * of_right + left * right * both)


def _of_blocks(rows: Tensor, stack: Tensor, blocks: Sequence[slice]) -> Tensor:
    """Each block of rows (N, D) times its matrix of the stack (E, D, a): (N, a)."""
    parts = [
        rows[block] @ matrix.to(rows.dtype)
        for block, matrix in zip(blocks, stack, strict=True)
        if block.start < block.stop
    ]
    return torch.cat(parts) if parts else rows.new_zeros(0, stack.shape[2])
