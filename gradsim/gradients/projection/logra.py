"""LoGra: Kronecker product of two small projections, applied to a gradient's factors."""

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
    """Sides R x C of a gradient and their projected dimensions a x b; a side of unchanged size is not projected."""

    rows: int
    columns: int
    a: int
    b: int

    @classmethod
    def of(cls, shape: tuple[int, ...], dimension: int) -> "Sides":
        """Return sides with a and b as equal as possible and a·b at most `dimension`.

        All axes but the last one count as rows.
        """
        rows, columns = prod(shape[:-1]), shape[-1]
        less = min(rows, columns, isqrt(dimension))
        more = min(max(rows, columns), dimension // less)
        return cls(rows, columns, *((less, more) if rows <= columns else (more, less)))

    @property
    def left(self) -> int:
        """Number of elements of A; 0 if the rows are not projected."""
        return self.rows * self.a if self.a < self.rows else 0

    @property
    def right(self) -> int:
        """Number of elements of B; 0 if the columns are not projected."""
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
    """Projection A G Bᵀ of a gradient G (R x C), with random signs A (a x R) / √a and B (b x C) / √b.

    Its dimension is k = a·b (Choe et al., 2024).

    Factors are projected without building the gradient: an outer product r cᵀ becomes (A r)(B c)ᵀ, and an embedding row
    looks up its column of A. Vectors are projected by `Sjlt`.

    The estimate is unbiased, but its variance is not bounded by 1/k. Up to terms of single elements, the variance of a
    projected inner product is

        (‖GᵀG'‖² + tr (GᵀG')²)/b + (‖GG'ᵀ‖² + tr (GG'ᵀ)²)/a + (q·o + d² + <GᵀG, G'ᵀG'> + <GGᵀ, G'G'ᵀ>)/(a·b),

    which is of order 1/a + 1/b for gradients of rank one. Terms of a side that is not projected vanish.
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
        """Return this class, or `Sjlt` for vectors, which have only one side."""
        return cls if len(shape) > 1 else Sjlt

    @staticmethod
    def dimension(shape: tuple[int, ...], wanted: int) -> int:
        """Return the largest product a·b up to `wanted` for a layer of this shape."""
        sides = Sides.of(shape, wanted)
        return sides.a * sides.b

    def project(self, gradients: Sequence[Tensor]) -> Tensor:
        """Project B gradients of the layer's shape; return (B, k)."""
        return torch.stack([self._project(wide(gradient)).reshape(-1) for gradient in gradients]).mul_(self._scale)

    def _project(self, gradient: Tensor) -> Tensor:
        """Return A G Bᵀ, (a, b), in the cheaper order."""
        values = gradient.reshape(self._sides.rows, self._sides.columns)
        if self._sides.left_first <= self._sides.right_first:
            return self._onto_right(self._onto_left(values.T).T)
        return self._onto_left(self._onto_right(values).T).T

    def project_term(self, term: Term | RowSum) -> Tensor:
        """Project a term from its factors, without building the gradient; return (k,)."""
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
        """Project rows (T, R) by A; return (T, a)."""
        if self._left is None:
            return rows
        self._left = self._left.to(rows.dtype)  # converts once if a comparison runs in float64
        return rows @ self._left

    def _onto_right(self, columns: Tensor) -> Tensor:
        """Project columns (T, C) by B; return (T, b)."""
        if self._right is None:
            return columns
        self._right = self._right.to(columns.dtype)
        return columns @ self._right

    @classmethod
    def effort(cls, sketch: LayerSketch) -> Effort:
        """Return the effort of two matrix products in the cheaper order."""
        sides = Sides.of(sketch.shape, sketch.dimension)
        return Effort(2.0 * min(sides.left_first, sides.right_first))

    @classmethod
    def term_effort(cls, sketch: LayerSketch, rows: float) -> Effort:
        """Return the effort of projecting and multiplying both factors, T (R a + C b + a b) multiplications.

        Sides that are not projected cost nothing. A row of a stack belongs to one of its layers.
        """
        sides = Sides.of(sketch.shape, sketch.dimension)
        layers = prod(sketch.shape[:-2])
        return Effort(2.0 * rows * (sides.left / layers + sides.right + sides.a * sides.b))

    @classmethod
    def variance(cls, sketch: LayerSketch, gradient: Tensor, other: Tensor) -> float:
        """Return the variance given by `kronecker_variance`."""
        sides = Sides.of(sketch.shape, sketch.dimension)
        g, h = (each.reshape(sides.rows, sides.columns) for each in (gradient, other))
        return kronecker_variance(g, h, 1 / sides.a if sides.left else 0.0, 1 / sides.b if sides.right else 0.0)

    @classmethod
    def nbytes(cls, sketch: LayerSketch, device: torch.device) -> int:
        """Return the bytes of A and B in float32."""
        sides = Sides.of(sketch.shape, sketch.dimension)
        return 4 * (sides.left + sides.right)

    @classmethod
    def working_bytes(cls, sketch: LayerSketch, device: torch.device) -> int:
        """Return the bytes of a float32 copy of a half-precision gradient."""
        return 4 * sketch.elements


def kronecker_variance(g: Tensor, h: Tensor, left: float, right: float) -> float:
    """Return the exact variance of <A G Bᵀ, A H Bᵀ> over random signs.

    With S = AᵀA, E[S_ij S_kl] = δ_ij δ_kl + (δ_ik δ_jl + δ_il δ_jk - 2 δ_ijkl)/a, and likewise for B. The variance is
    the product of these expectations, summed over G and H, without the product of both first terms.

    Args:
        g: (R, C) gradient.
        h: (R, C) other gradient.
        left: 1/a; zero if the rows are not projected.
        right: 1/b; zero if the columns are not projected.
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
    """Return each block of rows (N, D) times its matrix of the stack (E, D, a), (N, a)."""
    parts = [
        rows[block] @ matrix.to(rows.dtype)
        for block, matrix in zip(blocks, stack, strict=True)
        if block.start < block.stop
    ]
    return torch.cat(parts) if parts else rows.new_zeros(0, stack.shape[2])
