"""Biases that are added to every row of an output."""

from torch import Tensor

from gradsim.gradients.rules.terms import RowSum


def bias_term(delta: Tensor) -> RowSum:
    """y_t = ... + b: ∂L/∂b = Σ_t δ_t; δ (T, D)."""
    return RowSum(delta)
