"""What a layer's gradient is made of.

The gradient of one layer (a parameter tensor) is a sum of terms, one for every use of the layer in the forward pass.
A term holds factors, which for short samples are far smaller than the gradient, or the gradient itself. Shapes:
T rows (tokens, or fewer), R x C the layer, V x C an embedding, U different tokens, E experts of A x B.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate

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
class ExpertOuter:
    """A stack of E layers, each a sum of outer products over those tokens that go to its expert.

    An entry n is one token at one of its experts; entries are in the order of the experts. What is different in each
    entry is in `own`; what a token takes to all of its experts stands once, in `shared`.

        gradient[e] = Σ_{n of e} own_n shared_{tokens_n}ᵀ, or its transpose

    Attributes:
        counts: (E,) entries of each expert, on the host; they add up to N.
        tokens: (N,) row of `shared` of each entry: the row of the call's flattened input.
        own: (N, A).
        shared: (T, B).
        own_first: whether the gradient is (E, A, B); else it is (E, B, A).
    """

    counts: tuple[int, ...]
    tokens: Tensor
    own: Tensor
    shared: Tensor
    own_first: bool

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """What the term keeps in memory."""
        return (self.tokens, self.own, self.shared)

    def map(self, change: Callable[[Tensor], Tensor]) -> "ExpertOuter":
        """The term with every tensor changed."""
        tokens, own, shared = map(change, self.tensors)
        return ExpertOuter(self.counts, tokens, own, shared, self.own_first)

    def blocks(self) -> list[slice]:
        """(E,) the entries of each expert."""
        ends = list(accumulate(self.counts))
        return [slice(end - count, end) for end, count in zip(ends, self.counts, strict=True)]

    def gradient(self) -> Tensor:
        """The sum of each expert, zero where it has no entry."""
        widths = (self.own.shape[1], self.shared.shape[1])
        whole = self.own.new_empty(len(self.counts), *(widths if self.own_first else widths[::-1]))
        self.write(whole)
        return whole

    def write(self, to: Tensor) -> None:
        """Put the gradient in the place of what is there."""
        left, right = self.factors()
        for expert, block in zip(to, self.blocks(), strict=True):
            if block.start < block.stop:
                torch.mm(left[block].T, right[block], out=expert)
            else:
                expert.zero_()

    def add(self, to: Tensor) -> None:
        """Add the gradient to what is there."""
        left, right = self.factors()
        for expert, block in zip(to, self.blocks(), strict=True):
            if block.start < block.stop:
                expert.addmm_(left[block].T, right[block])

    def factors(self) -> tuple[Tensor, Tensor]:
        """Rows and columns of every entry's outer product."""
        shared = self.shared[self.tokens]
        return (self.own, shared) if self.own_first else (shared, self.own)

    def magnitude(self) -> Tensor:
        """Σ_n ‖own_n‖‖shared_{tokens_n}‖."""
        return torch.dot(_norm(self.own, dim=1), _norm(self.shared, dim=1)[self.tokens])


@dataclass(frozen=True, eq=False)
class RowSum:
    """A sum of rows, Σ_t rows_t: rows (T, D), gradient (D,). It is kept as `Dense`, which is T times smaller."""

    rows: Tensor

    def map(self, change: Callable[[Tensor], Tensor]) -> "RowSum":
        """The term with every tensor changed."""
        return RowSum(change(self.rows))

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


Term = Dense | Outer | TokenRows | ExpertOuter
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
