"""Compute inner products of two terms of one layer, with one identity per pair of term types.

Results are float64 scalars on the terms' device. Shapes are those of `terms`; a prime (') marks the second sample.
"""

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from gradsim.gradients.rules.arithmetic import inner
from gradsim.gradients.rules.terms import Dense, ExpertOuter, LayerTerms, Outer, Term, TokenRows

# Maximum elements of the (T, T') matrices in memory at once.
_GHOST_ELEMENTS = 1 << 24

# Rows of a symmetric (T, T) matrix computed at a time. A GPU needs more to hide kernel launches.
_STRIPE = {"cpu": 64}
_STRIPE_ON_ACCELERATOR = 1024


class Products:
    """Inner products of the layers of two samples.

    Layers that share a factor, as q, k and v share their input, reuse the products of that factor.
    """

    def __init__(self) -> None:
        self._shared: dict[tuple[int, int], tuple[Tensor, Tensor, Tensor]] = {}
        self._shared_stripes: dict[int, tuple[Tensor, list[Tensor]]] = {}

    def layer_dot(self, a: LayerTerms, b: LayerTerms) -> Tensor | float:
        """Return the inner product of one layer's gradients, summed over all pairs of terms.

        Summing over all pairs, including cross terms, handles tied embeddings and modules that run several times. The
        result is zero if either sample has no term.
        """
        total: Tensor | float = 0.0
        for term in a:
            for other in b:
                total = total + self.dot(term, other)
        return total

    def dot(self, a: Term, b: Term) -> Tensor:
        """Return the inner product of the gradients of two terms."""
        match a, b:
            case Dense(), Dense():
                product = inner(a.values, b.values)
            case Outer(), Outer():
                product = self.outer_outer(a, b)
            case TokenRows(), TokenRows():
                product = tokens_tokens(a, b)
            case ExpertOuter(), ExpertOuter():
                product = experts_experts(a, b)
            case Outer(), Dense():
                product = outer_dense(a, b)
            case TokenRows(), Dense():
                product = tokens_dense(a, b)
            case TokenRows(), Outer():
                product = tokens_outer(a, b)
            case ExpertOuter(), Dense():
                product = experts_dense(a, b)
            case _:
                product = self.dot(b, a)
        return product

    def outer_outer(self, a: Outer, b: Outer) -> Tensor:
        """Return the ghost product <Σ_t r_t c_tᵀ, Σ_s r'_s c'_sᵀ> = Σ_{t,s} (r_t·r'_s)(c_t·c'_s).

        It takes T·T'·(R + C) multiplications.
        """
        if a is b:
            return self.outer_self(a)
        if len(a.rows) * len(b.rows) <= _GHOST_ELEMENTS:
            return inner(self._gram(a.rows, b.rows), self._gram(a.columns, b.columns))
        step = max(1, _GHOST_ELEMENTS // len(b.rows))
        total = a.rows.new_zeros((), dtype=torch.float64)
        for start in range(0, len(a.rows), step):
            part = slice(start, start + step)
            total = total + inner(a.rows[part] @ b.rows.T, a.columns[part] @ b.columns.T)
        return total

    def outer_self(self, a: Outer) -> Tensor:
        """Return the inner product of a term with itself; symmetry halves the cost to T²·(R + C) / 2."""
        total = a.rows.new_zeros((), dtype=torch.float64)
        start = 0
        for rows, columns in zip(self._stripes(a.rows), self._stripes(a.columns), strict=True):
            total = total + 2.0 * inner(rows, columns) - inner(rows[:, start:], columns[:, start:])
            start = rows.shape[1]
        return total

    def _stripes(self, a: Tensor) -> Iterable[Tensor]:
        """Return the lower triangle of a aᵀ for a (T, D), in stripes of a few rows.

        A stripe has the shape (rows, columns up to its last row), so it ends in a square of its own rows.
        """
        if id(a) in self._shared_stripes:
            return self._shared_stripes[id(a)][1]
        step = _STRIPE.get(a.device.type, _STRIPE_ON_ACCELERATOR)
        stripes = (a[start : start + step] @ a[: start + step].T for start in range(0, len(a), step))
        if len(a) ** 2 > _GHOST_ELEMENTS:
            return stripes
        self._shared_stripes[id(a)] = (a, list(stripes))
        return self._shared_stripes[id(a)][1]

    def _gram(self, a: Tensor, b: Tensor) -> Tensor:
        """Return the inner products of all rows of a (T, D) and b (T', D), (T, T')."""
        key = (id(a), id(b))
        if key not in self._shared:
            # Keep the factors alive, so that their ids are not reused.
            self._shared[key] = (a, b, a @ b.T)
        return self._shared[key][2]


def outer_dense(a: Outer, b: Dense) -> Tensor:
    """Return <Σ_t r_t c_tᵀ, G> = Σ_t r_tᵀ G c_t, in T·R·C multiplications."""
    if a.rows.shape[1] > a.columns.shape[1]:
        return inner(a.rows @ b.values, a.columns)
    return inner(a.columns @ b.values.T, a.rows)


def tokens_tokens(a: TokenRows, b: TokenRows) -> Tensor:
    """Return Σ g_token·g'_token over the tokens that both have, without a (V, C) matrix."""
    if len(a.tokens) > len(b.tokens):
        a, b = b, a
    if len(a.tokens) == 0:
        return a.rows.new_zeros((), dtype=torch.float64)
    place = torch.searchsorted(b.tokens, a.tokens).clamp_(max=len(b.tokens) - 1)
    shared = b.tokens[place] == a.tokens
    return inner(a.rows, b.rows[place] * shared[:, None])


def tokens_dense(a: TokenRows, b: Dense) -> Tensor:
    """Return Σ_u g_u·G[token_u]."""
    return inner(a.rows, b.values[a.tokens])


def tokens_outer(a: TokenRows, b: Outer) -> Tensor:
    """Return the cross term of a tied embedding a and head b, Σ_u Σ_s r'_s[token_u] (g_u·c'_s).

    It takes U·T'·C multiplications.
    """
    return inner(b.rows[:, a.tokens], b.columns @ a.rows.T)


def experts_experts(a: ExpertOuter, b: ExpertOuter) -> Tensor:
    """Return the ghost product within each expert, Σ_e Σ_{n,m of e} (own_n·own'_m)(shared_n·shared'_m).

    It takes N_e·N'_e·(A + B) multiplications per expert. The Gram matrices of many experts are computed before one
    inner product combines them.
    """
    blocks = list(_common_blocks(a, b))
    areas = [(rows.stop - rows.start) * (others.stop - others.start) for rows, others in blocks]
    room = min(sum(areas), max(_GHOST_ELEMENTS, *areas, 0))
    own, shared = a.own.new_empty(room), a.own.new_empty(room)
    a_shared, b_shared = a.shared[a.tokens], b.shared[b.tokens]
    total = a.own.new_zeros((), dtype=torch.float64)
    end = 0
    for (rows, others), area in zip(blocks, areas, strict=True):
        if end + area > room:
            total = total + inner(own[:end], shared[:end])
            end = 0
        start, end = end, end + area
        shape = (rows.stop - rows.start, others.stop - others.start)
        torch.mm(a.own[rows], b.own[others].T, out=own[start:end].view(shape))
        torch.mm(a_shared[rows], b_shared[others].T, out=shared[start:end].view(shape))
    return total + inner(own[:end], shared[:end])


def _common_blocks(a: ExpertOuter, b: ExpertOuter) -> Iterator[tuple[slice, slice]]:
    """Yield the entries of a and b of each common expert, in parts that bound the size of Gram matrices."""
    for rows, others in zip(a.blocks(), b.blocks(), strict=True):
        count = others.stop - others.start
        step = max(1, _GHOST_ELEMENTS // max(1, count))
        if count:
            for start in range(rows.start, rows.stop, step):
                yield slice(start, min(start + step, rows.stop)), others


def experts_dense(a: ExpertOuter, b: Dense) -> Tensor:
    """Return Σ_e Σ_{n of e} own_nᵀ G_e shared_n, in N·A·B multiplications.

    G_e is transposed if the gradient of a is stored transposed.
    """
    values = b.values if a.own_first else b.values.mT
    products = torch.empty_like(a.own)
    shared = a.shared[a.tokens]
    for expert, block in zip(values, a.blocks(), strict=True):
        if block.start < block.stop:
            torch.mm(shared[block], expert.T, out=products[block])
    return inner(products, a.own)
