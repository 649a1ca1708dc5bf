"""Weights of `nn.Linear` and of transformers' `Conv1D`, which is a linear layer with a transposed weight."""

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from gradsim.gradients.rules.bias import bias_term
from gradsim.gradients.rules.call import Call
from gradsim.gradients.rules.terms import Outer, RowSum, Term


def linear_terms(module: nn.Linear, call: Call, delta: Tensor) -> dict[str, Term | RowSum]:
    """Y = x Wᵀ + b, W (D, K): ∂L/∂W = Σ_t δ_t x_tᵀ; x (T, K), δ (T, D)."""
    rows, columns = without_zero_rows(delta, call.rows())
    terms: dict[str, Term | RowSum] = {"weight": Outer(rows, columns)}
    if module.bias is not None:
        terms["bias"] = bias_term(delta)
    return terms


def conv1d_terms(module: Conv1D, call: Call, delta: Tensor) -> dict[str, Term | RowSum]:
    """Y = x W + b, W (K, D): ∂L/∂W = Σ_t x_t δ_tᵀ; x (T, K), δ (T, D)."""
    columns, rows = without_zero_rows(delta, call.rows())
    return {"weight": Outer(rows, columns), "bias": bias_term(delta)}


def without_zero_rows(delta: Tensor, inputs: Tensor) -> tuple[Tensor, Tensor]:
    """δ and x without the rows where δ is exactly zero, as at the head where labels are masked.

    Views where one range is left, which is the usual case: q, k and v keep sharing their input.
    """
    kept = torch.nonzero(delta.any(dim=1)).squeeze(1)
    if len(kept) == 0:
        return delta[:0], inputs[:0]
    first, end = int(kept[0]), int(kept[-1]) + 1
    if end - first == len(kept):
        return delta[first:end], inputs[first:end]
    return delta[kept], inputs[kept]
