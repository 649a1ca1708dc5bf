"""Embedding tables."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from gradsim.gradients.rules.arithmetic import segment_sums
from gradsim.gradients.rules.call import Call, output_with
from gradsim.gradients.rules.terms import Term, TokenRows


def embedding_terms(module: nn.Embedding, call: Call, delta: Tensor) -> dict[str, Term]:
    """For y_t = W[token_t], W (V, C): row v of ∂L/∂W is Σ_{t: token_t = v} δ_t, zero for `padding_idx`."""
    return {"weight": _looked_up(module, call.input.reshape(-1), delta)}


def changes_rows(module: nn.Module) -> bool:
    """Return whether a module is an embedding whose own forward takes tokens and nothing else, as scaled ones do.

    Embeddings of positions take more, and may give the same rows to all samples of a batch.
    """
    return (
        isinstance(module, nn.Embedding)
        and type(module).forward is not nn.Embedding.forward
        and len(inspect.signature(type(module).forward).parameters) == len(("self", "tokens"))
        and len(list(module.parameters())) == 1
        and next(module.children(), None) is None
    )


def changed_rows_terms(module: nn.Embedding, call: Call, delta: Tensor) -> dict[str, Term]:
    """For y = f(W[tokens]), run the forward again and differentiate it by the rows that it looks up."""
    weight = module.weight.detach()
    with torch.enable_grad(), _Lookups(weight) as lookups:
        output = output_with(module, {"weight": weight}, call)
    if not output.requires_grad or output.numel() != delta.numel():
        return {}
    rows = torch.autograd.grad(output, lookups.rows, delta.view_as(output))
    tokens = torch.cat([tokens.reshape(-1) for tokens in lookups.tokens])
    return {"weight": _looked_up(module, tokens, torch.cat([row.reshape(-1, module.embedding_dim) for row in rows]))}


class _Lookups(TorchFunctionMode):
    """Within, a weight's looked-up rows are leaves of the graph."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self._weight = weight
        self.tokens: list[Tensor] = []
        self.rows: list[Tensor] = []

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Run a function; look rows up without a gradient of the whole weight."""
        result = func(*args, **(kwargs or {}))
        if func is nn.functional.embedding and args[1] is self._weight:
            result = result.detach().requires_grad_()
            self.tokens.append(args[0])
            self.rows.append(result)
        return result


def _looked_up(module: nn.Embedding, tokens: Tensor, delta: Tensor) -> TokenRows:
    """The gradient of rows (T, C) of W that were looked up for tokens (T,); `padding_idx` has none."""
    if module.padding_idx is not None:
        kept = tokens != module.padding_idx
        tokens, delta = tokens[kept], delta[kept]
    return summed_by_token(tokens, delta, module.num_embeddings)


def summed_by_token(tokens: Tensor, delta: Tensor, vocabulary: int) -> TokenRows:
    """Rows of delta (T, C) that share a token summed, in the order of the tokens (T,)."""
    tokens = tokens.long()
    order = torch.argsort(tokens, stable=True)
    different, counts = torch.unique_consecutive(tokens[order], return_counts=True)
    return TokenRows(different, segment_sums(delta[order], counts), vocabulary)
