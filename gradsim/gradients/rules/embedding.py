"""Embedding tables."""

import torch
from torch import Tensor, nn

from gradsim.gradients.arithmetic import segment_sums
from gradsim.gradients.rules.call import Call
from gradsim.gradients.rules.terms import Term, TokenRows


def embedding_terms(module: nn.Embedding, call: Call, delta: Tensor) -> dict[str, Term]:
    """For y_t = W[token_t], W (V, C): row v of ∂L/∂W is Σ_{t: token_t = v} δ_t, zero for `padding_idx`."""
    tokens = call.input.reshape(-1)
    if module.padding_idx is not None:
        kept = tokens != module.padding_idx
        tokens, delta = tokens[kept], delta[kept]
    return {"weight": summed_by_token(tokens, delta, module.num_embeddings)}


def summed_by_token(tokens: Tensor, delta: Tensor, vocabulary: int) -> TokenRows:
    """Rows of delta (T, C) that share a token summed, in the order of the tokens (T,)."""
    order = torch.argsort(tokens, stable=True)
    different, counts = torch.unique_consecutive(tokens[order], return_counts=True)
    return TokenRows(different, segment_sums(delta[order], counts), vocabulary)
