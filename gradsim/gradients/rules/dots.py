"""The inner product of two terms of one layer, each pair of kinds by its own identity.

Results are float64 scalars on the terms' device. Shapes as in `terms`; a dash marks the second sample.
"""

import torch
from torch import Tensor

from gradsim.gradients.arithmetic import inner
from gradsim.gradients.rules.terms import Dense, LayerTerms, Outer, Term, TokenRows

# Elements of the (T, T') matrices that stand in memory at once.
_GHOST_ELEMENTS = 1 << 24


class Products:
    """Inner products of the layers of two samples.

    Layers that share a factor, as q, k and v share their input, share its products with the other sample's.
    """

    def __init__(self) -> None:
        self._shared: dict[tuple[int, int], tuple[Tensor, Tensor, Tensor]] = {}

    def layer_dot(self, a: LayerTerms, b: LayerTerms) -> Tensor | float:
        """Inner product of one layer's gradients: the sum over all pairs of terms; zero where one has none.

        The sum over pairs is what makes tied embeddings (both terms and both cross terms) and modules that are used
        several times come out right.
        """
        total: Tensor | float = 0.0
        for term in a:
            for other in b:
                total = total + self.dot(term, other)
        return total

    def dot(self, a: Term, b: Term) -> Tensor:
        """Inner product of the gradients of two terms."""
        match a, b:
            case Dense(), Dense():
                product = inner(a.values, b.values)
            case Outer(), Outer():
                product = self.outer_outer(a, b)
            case TokenRows(), TokenRows():
                product = tokens_tokens(a, b)
            case Outer(), Dense():
                product = outer_dense(a, b)
            case TokenRows(), Dense():
                product = tokens_dense(a, b)
            case TokenRows(), Outer():
                product = tokens_outer(a, b)
            case _:
                product = self.dot(b, a)
        return product

    def outer_outer(self, a: Outer, b: Outer) -> Tensor:
        """The ghost product: <Σ_t r_t c_tᵀ, Σ_s r'_s c'_sᵀ> = Σ_{t,s} (r_t·r'_s)(c_t·c'_s); T·T'·(R + C) products."""
        if len(a.rows) * len(b.rows) <= _GHOST_ELEMENTS:
            return inner(self._gram(a.rows, b.rows), self._gram(a.columns, b.columns))
        step = max(1, _GHOST_ELEMENTS // len(b.rows))
        total = a.rows.new_zeros((), dtype=torch.float64)
        for start in range(0, len(a.rows), step):
            part = slice(start, start + step)
            total = total + inner(a.rows[part] @ b.rows.T, a.columns[part] @ b.columns.T)
        return total

    def _gram(self, a: Tensor, b: Tensor) -> Tensor:
        """(T, D) and (T', D) -> all inner products of their rows, (T, T')."""
        key = (id(a), id(b))
        if key not in self._shared:
            # With the factors, so that these numbers stay theirs.
            self._shared[key] = (a, b, a @ b.T)
        return self._shared[key][2]


def outer_dense(a: Outer, b: Dense) -> Tensor:
    """<Σ_t r_t c_tᵀ, G> = Σ_t r_tᵀ G c_t; T·R·C products."""
    if a.rows.shape[1] > a.columns.shape[1]:
        return inner(a.rows @ b.values, a.columns)
    return inner(a.columns @ b.values.T, a.rows)


def tokens_tokens(a: TokenRows, b: TokenRows) -> Tensor:
    """Σ over the tokens that both have of g_token·g'_token; no (V, C) matrix."""
    if len(a.tokens) > len(b.tokens):
        a, b = b, a
    if len(a.tokens) == 0:
        return a.rows.new_zeros((), dtype=torch.float64)
    place = torch.searchsorted(b.tokens, a.tokens).clamp_(max=len(b.tokens) - 1)
    shared = b.tokens[place] == a.tokens
    return inner(a.rows, b.rows[place] * shared[:, None])


def tokens_dense(a: TokenRows, b: Dense) -> Tensor:
    """Σ_u g_u·G[token_u]."""
    return inner(a.rows, b.values[a.tokens])


def tokens_outer(a: TokenRows, b: Outer) -> Tensor:
    """The cross term of a tied embedding a and head b: Σ_u Σ_s r'_s[token_u] (g_u·c'_s); U·T'·C products."""
    return inner(b.rows[:, a.tokens], b.columns @ a.rows.T)
