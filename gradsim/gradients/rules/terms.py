"""What a layer's gradient is made of.

The gradient of one layer (a parameter tensor) is a sum of terms, one for every use of the layer in the forward pass.
A term holds factors, which for short samples are far smaller than the gradient, or the gradient itself. Shapes:
T rows (tokens, or fewer), R x C the layer, V x C an embedding, U different tokens.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Dense:
    """The gradient itself, of the layer's shape."""

    values: Tensor

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """What the term keeps in memory."""
        return (self.values,)

    def map(self, change: Callable[[Tensor], Tensor]) -> "Dense":
        """The term with every tensor changed."""
        return Dense(change(self.values))

    def gradient(self) -> Tensor:
        """The gradient, not a copy."""
        return self.values

    def write(self, to: Tensor) -> None:
        """Put the gradient in the place of what is there."""
        to.copy_(self.values)

    def add(self, to: Tensor) -> None:
        """Add the gradient to what is there."""
        to.add_(self.values)

    def magnitude(self) -> Tensor:
        """Sum of the norms of what is summed; rounding errors are in proportion to it."""
        return _norm(self.values)


@dataclass(frozen=True, eq=False)
class Outer:
    """A sum of outer products, Σ_t rows_t columns_tᵀ: rows (T, R), columns (T, C), gradient (R, C)."""

    rows: Tensor
    columns: Tensor

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """What the term keeps in memory."""
        return (self.rows, self.columns)

    def map(self, change: Callable[[Tensor], Tensor]) -> "Outer":
        """The term with every tensor changed."""
        return Outer(change(self.rows), change(self.columns))

    def gradient(self) -> Tensor:
        """Σ_t rows_t columns_tᵀ, (R, C)."""
        return torch.mm(self.rows.T, self.columns)

    def write(self, to: Tensor) -> None:
        """Put the gradient in the place of what is there."""
        torch.mm(self.rows.T, self.columns, out=to)

    def add(self, to: Tensor) -> None:
        """Add the gradient to what is there."""
        to.addmm_(self.rows.T, self.columns)

    def magnitude(self) -> Tensor:
        """Σ_t ‖rows_t‖‖columns_t‖."""
        return torch.dot(_norm(self.rows, dim=1), _norm(self.columns, dim=1))


@dataclass(frozen=True, eq=False)
class TokenRows:
    """Rows of an embedding's gradient: tokens (U,) ascending and different, rows (U, C), gradient (V, C)."""

    tokens: Tensor
    rows: Tensor
    vocabulary: int

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """What the term keeps in memory."""
        return (self.tokens, self.rows)

    def map(self, change: Callable[[Tensor], Tensor]) -> "TokenRows":
        """The term with every tensor changed."""
        return TokenRows(change(self.tokens), change(self.rows), self.vocabulary)

    def gradient(self) -> Tensor:
        """The rows where their tokens say, zero elsewhere, (V, C)."""
        whole = self.rows.new_empty(self.vocabulary, self.rows.shape[1])
        self.write(whole)
        return whole

    def write(self, to: Tensor) -> None:
        """Put the gradient in the place of what is there."""
        to.zero_().index_copy_(0, self.tokens, self.rows)

    def add(self, to: Tensor) -> None:
        """Add the gradient to what is there: tokens are different, so that no two additions meet."""
        to.index_copy_(0, self.tokens, to.index_select(0, self.tokens) + self.rows)

    def magnitude(self) -> Tensor:
        """Σ_u ‖rows_u‖."""
        return _norm(self.rows, dim=1).sum()


@dataclass(frozen=True, eq=False)
class RowSum:
    """A sum of rows, Σ_t rows_t: rows (T, D), gradient (D,). It is kept as `Dense`, which is T times smaller."""

    rows: Tensor

    def gradient(self) -> Tensor:
        """Σ_t rows_t, (D,)."""
        return self.rows.sum(dim=0)

    def write(self, to: Tensor) -> None:
        """Put the gradient in the place of what is there."""
        torch.sum(self.rows, dim=0, out=to)

    def add(self, to: Tensor) -> None:
        """Add the gradient to what is there."""
        to.add_(self.gradient())

    def magnitude(self) -> Tensor:
        """Σ_t ‖rows_t‖."""
        return _norm(self.rows, dim=1).sum()


Term = Dense | Outer | TokenRows
LayerTerms = Sequence[Term]
"""One layer's gradient in one sample; no term: exactly zero."""


def gradient(terms: Sequence[Term | RowSum]) -> Tensor:
    """The gradient of a layer that has at least one term."""
    total = terms[0].gradient()
    for term in terms[1:]:
        total = total + term.gradient()
    return total


def nbytes(terms: LayerTerms) -> int:
    """Bytes that a layer's terms take."""
    return sum(tensor.nbytes for term in terms for tensor in term.tensors)


def _norm(values: Tensor, dim: int | None = None) -> Tensor:
    norm: Tensor = torch.linalg.vector_norm(values, dim=dim)
    return norm
