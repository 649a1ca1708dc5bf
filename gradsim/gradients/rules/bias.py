"""Gradient rule for biases that are added to every row of an output."""

from torch import Tensor

from gradsim.gradients.rules.terms import RowSum


def bias_term(delta: Tensor) -> RowSum:
    """Return the term of a bias b in y_t = ... + b, given δ (T, D): ∂L/∂b = Σ_t δ_t."""
    return RowSum(delta)
