"""Gradient rules for `nn.Linear` and for transformers' `Conv1D`, a linear layer with a transposed weight."""

from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from gradsim.gradients.rules.bias import bias_term
from gradsim.gradients.rules.call import Call
from gradsim.gradients.rules.terms import Outer, RowSum, Term


def computes_product(module: nn.Module) -> bool:
    """Return whether a module is an `nn.Linear`, or a subclass of it, that computes the plain linear product."""
    return isinstance(module, nn.Linear) and _class_computes_product(type(module))  # type: ignore[arg-type]


@cache
def _class_computes_product(kind: Callable[..., nn.Linear]) -> bool:
    """Return whether a small `nn.Linear` computes the same output after its class is changed to `kind`."""
    with torch.device("cpu"), torch.random.fork_rng(devices=[]):
        layer = nn.Linear(3, 2, dtype=torch.float64)
        inputs = torch.randn(4, 3, dtype=torch.float64)
    expected = layer(inputs)
    try:
        layer.__class__ = kind  # type: ignore[assignment]
        output = layer.forward(inputs)
    except (AttributeError, IndexError, RuntimeError, TypeError, ValueError):
        return False
    return isinstance(output, Tensor) and output.shape == expected.shape and torch.allclose(output, expected)


def linear_terms(module: nn.Linear, call: Call, delta: Tensor) -> dict[str, Term | RowSum]:
    """Return the terms of Y = x Wᵀ + b, W (D, K), given x (T, K) and δ (T, D): ∂L/∂W = Σ_t δ_t x_tᵀ."""
    terms: dict[str, Term | RowSum] = {"weight": Outer(delta, call.rows())}
    if module.bias is not None:
        terms["bias"] = bias_term(delta)
    return terms


def conv1d_terms(module: Conv1D, call: Call, delta: Tensor) -> dict[str, Term | RowSum]:
    """Return the terms of Y = x W + b, W (K, D), given x (T, K) and δ (T, D): ∂L/∂W = Σ_t x_t δ_tᵀ."""
    return {"weight": Outer(call.rows(), delta), "bias": bias_term(delta)}
