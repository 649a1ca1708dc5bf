"""Define the terms that make up a layer's gradient.

The gradient of one layer (a parameter tensor) is a sum of terms, one per use of the layer in the forward pass. A term
stores either the gradient itself or its factors, which are much smaller than the gradient for short samples.

Shapes: T rows (at most one per token), R x C layers, V x C embeddings, U distinct tokens, E experts of A x B.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Dense:
    """Gradient itself, in the layer's shape."""

    values: Tensor

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """Tensors that the term keeps in memory."""
        return (self.values,)

    def map(self, change: Callable[[Tensor], Tensor]) -> "Dense":
        """Return the term with `change` applied to each tensor."""
        return Dense(change(self.values))

    def gradient(self) -> Tensor:
        """Return the gradient without copying it."""
        return self.values

    def write(self, to: Tensor) -> None:
        """Overwrite `to` with the gradient."""
        to.copy_(self.values)

    def add(self, to: Tensor) -> None:
        """Add the gradient to `to` in place."""
        to.add_(self.values)

    def magnitude(self) -> Tensor:
        """Return the sum of the summands' norms, which scales the rounding error."""
        return _norm(self.values)


@dataclass(frozen=True, eq=False)
class Outer:
    """Sum of outer products, Σ_t rows_t columns_tᵀ: rows (T, R), columns (T, C), gradient (R, C)."""

    rows: Tensor
    columns: Tensor

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """Tensors that the term keeps in memory."""
        return (self.rows, self.columns)

    def map(self, change: Callable[[Tensor], Tensor]) -> "Outer":
        """Return the term with `change` applied to each tensor."""
        return Outer(change(self.rows), change(self.columns))

    def gradient(self) -> Tensor:
        """Return Σ_t rows_t columns_tᵀ, (R, C)."""
        return torch.mm(self.rows.T, self.columns)

    def write(self, to: Tensor) -> None:
        """Overwrite `to` with the gradient."""
        torch.mm(self.rows.T, self.columns, out=to)

    def add(self, to: Tensor) -> None:
        """Add the gradient to `to` in place."""
        to.addmm_(self.rows.T, self.columns)

    def magnitude(self) -> Tensor:
        """Return Σ_t ‖rows_t‖‖columns_t‖."""
        return torch.dot(_norm(self.rows, dim=1), _norm(self.columns, dim=1))


@dataclass(frozen=True, eq=False)
class TokenRows:
    """Non-zero rows of an embedding's gradient: tokens (U,) ascending and distinct, rows (U, C), gradient (V, C)."""

    tokens: Tensor
    rows: Tensor
    vocabulary: int

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """Tensors that the term keeps in memory."""
        return (self.tokens, self.rows)

    def map(self, change: Callable[[Tensor], Tensor]) -> "TokenRows":
        """Return the term with `change` applied to each tensor."""
        return TokenRows(change(self.tokens), change(self.rows), self.vocabulary)

    def gradient(self) -> Tensor:
        """Return the gradient (V, C), zero outside the rows of the tokens."""
        whole = self.rows.new_empty(self.vocabulary, self.rows.shape[1])
        self.write(whole)
        return whole

    def write(self, to: Tensor) -> None:
        """Overwrite `to` with the gradient."""
        to.zero_().index_copy_(0, self.tokens, self.rows)

    def add(self, to: Tensor) -> None:
        """Add the gradient to `to` in place; distinct tokens make this deterministic."""
        to.index_copy_(0, self.tokens, to.index_select(0, self.tokens) + self.rows)

    def magnitude(self) -> Tensor:
        """Return Σ_u ‖rows_u‖."""
        return _norm(self.rows, dim=1).sum()


@dataclass(frozen=True, eq=False)
class ExpertOuter:
    """Gradient of a stack of E experts, each a sum of outer products over the tokens routed to it.

    An entry n is one token at one of its experts; entries are sorted by expert. `own` stores the factor of each entry,
    `shared` stores the factor that all entries of a token have in common.

        gradient[e] = Σ_{n of e} own_n shared_{tokens_n}ᵀ, or its transpose

    Attributes:
        counts: (E,) number of entries per expert, on the host; the sum is N.
        tokens: (N,) row of `shared` for each entry, equal to the row of the call's flattened input.
        own: (N, A) factors per entry.
        shared: (T, B) factors per token.
        own_first: whether the gradient has the shape (E, A, B) instead of (E, B, A).
    """

    counts: tuple[int, ...]
    tokens: Tensor
    own: Tensor
    shared: Tensor
    own_first: bool

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """Tensors that the term keeps in memory."""
        return (self.tokens, self.own, self.shared)

    def map(self, change: Callable[[Tensor], Tensor]) -> "ExpertOuter":
        """Return the term with `change` applied to each tensor."""
        tokens, own, shared = map(change, self.tensors)
        return ExpertOuter(self.counts, tokens, own, shared, self.own_first)

    def blocks(self) -> list[slice]:
        """Return the slice of each expert's entries, (E,)."""
        ends = list(accumulate(self.counts))
        return [slice(end - count, end) for end, count in zip(ends, self.counts, strict=True)]

    def gradient(self) -> Tensor:
        """Return the gradient of all experts, zero for experts without entries."""
        widths = (self.own.shape[1], self.shared.shape[1])
        whole = self.own.new_empty(len(self.counts), *(widths if self.own_first else widths[::-1]))
        self.write(whole)
        return whole

    def write(self, to: Tensor) -> None:
        """Overwrite `to` with the gradient."""
        left, right = self.factors()
        for expert, block in zip(to, self.blocks(), strict=True):
            if block.start < block.stop:
                torch.mm(left[block].T, right[block], out=expert)
            else:
                expert.zero_()

    def add(self, to: Tensor) -> None:
        """Add the gradient to `to` in place."""
        left, right = self.factors()
        for expert, block in zip(to, self.blocks(), strict=True):
            if block.start < block.stop:
                expert.addmm_(left[block].T, right[block])

    def factors(self) -> tuple[Tensor, Tensor]:
        """Return the rows and columns of every entry's outer product."""
        shared = self.shared[self.tokens]
        return (self.own, shared) if self.own_first else (shared, self.own)

    def magnitude(self) -> Tensor:
        """Return Σ_n ‖own_n‖‖shared_{tokens_n}‖."""
        return torch.dot(_norm(self.own, dim=1), _norm(self.shared, dim=1)[self.tokens])


@dataclass(frozen=True, eq=False)
class RowSum:
    """Sum of rows, Σ_t rows_t: rows (T, D), gradient (D,). It is stored as `Dense`, which is T times smaller."""

    rows: Tensor

    def map(self, change: Callable[[Tensor], Tensor]) -> "RowSum":
        """Return the term with `change` applied to each tensor."""
        return RowSum(change(self.rows))

    def gradient(self) -> Tensor:
        """Return Σ_t rows_t, (D,)."""
        return self.rows.sum(dim=0)

    def write(self, to: Tensor) -> None:
        """Overwrite `to` with the gradient."""
        torch.sum(self.rows, dim=0, out=to)

    def add(self, to: Tensor) -> None:
        """Add the gradient to `to` in place."""
        to.add_(self.gradient())

    def magnitude(self) -> Tensor:
        """Return Σ_t ‖rows_t‖."""
        return _norm(self.rows, dim=1).sum()


Term = Dense | Outer | TokenRows | ExpertOuter
LayerTerms = Sequence[Term]
"""Terms of one layer's gradient in one sample; without terms, the gradient is exactly zero."""


def gradient(terms: Sequence[Term | RowSum]) -> Tensor:
    """Return the gradient of a layer that has at least one term."""
    total = terms[0].gradient()
    for term in terms[1:]:
        total = total + term.gradient()
    return total


def nbytes(terms: LayerTerms) -> int:
    """Return the bytes of a layer's terms."""
    return sum(tensor.nbytes for term in terms for tensor in term.tensors)


def _norm(values: Tensor, dim: int | None = None) -> Tensor:
    norm: Tensor = torch.linalg.vector_norm(values, dim=dim)
    return norm
