"""Gradient rules for embeddings."""

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
    """Return the term of y_t = W[token_t], W (V, C), given δ (T, C): row v of ∂L/∂W is Σ_{t: token_t = v} δ_t.

    The row of `padding_idx` is zero.
    """
    return {"weight": _looked_up(module, call.input.reshape(-1), delta)}


def changes_rows(module: nn.Module) -> bool:
    """Return whether a module is an embedding with a custom forward that takes only tokens, such as a scaled embedding.

    Position embeddings take more arguments and may return the same rows for all samples of a batch.
    """
    return (
        isinstance(module, nn.Embedding)
        and type(module).forward is not nn.Embedding.forward
        and len(inspect.signature(type(module).forward).parameters) == len(("self", "tokens"))
        and len(list(module.parameters())) == 1
        and next(module.children(), None) is None
    )


def changed_rows_terms(module: nn.Embedding, call: Call, delta: Tensor) -> dict[str, Term]:
    """Return the term of y = f(W[tokens]), given δ with the elements of y.

    The forward runs again and is differentiated with respect to the looked-up rows. The result is empty if the output
    does not match δ or does not depend on looked-up rows.
    """
    weight = module.weight.detach()
    with torch.enable_grad(), _Lookups(weight) as lookups:
        output = output_with(module, {"weight": weight}, call)
    if not output.requires_grad or output.numel() != delta.numel():
        return {}
    rows = torch.autograd.grad(output, lookups.rows, delta.view_as(output))
    tokens = torch.cat([tokens.reshape(-1) for tokens in lookups.tokens])
    return {"weight": _looked_up(module, tokens, torch.cat([row.reshape(-1, module.embedding_dim) for row in rows]))}


class _Lookups(TorchFunctionMode):
    """Context in which the looked-up rows of a weight are leaves of the autograd graph."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self._weight = weight
        self.tokens: list[Tensor] = []
        self.rows: list[Tensor] = []

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Run a function; replace rows looked up in the weight with recorded leaves."""
        result = func(*args, **(kwargs or {}))
        if func is nn.functional.embedding and args[1] is self._weight:
            result = result.detach().requires_grad_()
            self.tokens.append(args[0])
            self.rows.append(result)
        return result


def _looked_up(module: nn.Embedding, tokens: Tensor, delta: Tensor) -> TokenRows:
    """Return the gradient of W for tokens (T,) and the gradients of their rows (T, C), without `padding_idx`."""
    if module.padding_idx is not None:
        kept = tokens != module.padding_idx
        tokens, delta = tokens[kept], delta[kept]
    return summed_by_token(tokens, delta, module.num_embeddings)


def summed_by_token(tokens: Tensor, delta: Tensor, vocabulary: int) -> TokenRows:
    """Return the sums of the rows of delta (T, C) by token (T,), in ascending order of the tokens."""
    tokens = tokens.long()
    order = torch.argsort(tokens, stable=True)
    different, counts = torch.unique_consecutive(tokens[order], return_counts=True)
    return TokenRows(different, segment_sums(delta[order], counts), vocabulary)
