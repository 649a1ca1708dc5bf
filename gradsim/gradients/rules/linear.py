"""Weights of `nn.Linear` and of transformers' `Conv1D`, which is a linear layer with a transposed weight."""

from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from gradsim.gradients.rules.bias import bias_term
from gradsim.gradients.rules.call import Call
from gradsim.gradients.rules.terms import Outer, RowSum, Term


def linear_terms(module: nn.Linear, call: Call, delta: Tensor) -> dict[str, Term | RowSum]:
    """Y = x Wᵀ + b, W (D, K): ∂L/∂W = Σ_t δ_t x_tᵀ; x (T, K), δ (T, D)."""
    terms: dict[str, Term | RowSum] = {"weight": Outer(delta, call.rows())}
    if module.bias is not None:
        terms["bias"] = bias_term(delta)
    return terms


def conv1d_terms(module: Conv1D, call: Call, delta: Tensor) -> dict[str, Term | RowSum]:
    """Y = x W + b, W (K, D): ∂L/∂W = Σ_t x_t δ_tᵀ; x (T, K), δ (T, D)."""
    return {"weight": Outer(call.rows(), delta), "bias": bias_term(delta)}
