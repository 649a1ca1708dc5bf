"""Gradient rule for normalisation layers: any layer that is affine, element by element, in a 1-D weight."""

import torch
from torch import Tensor, nn

from gradsim.gradients.rules.bias import bias_term
from gradsim.gradients.rules.call import Call, output_with
from gradsim.gradients.rules.terms import RowSum


def looks_like_norm(module: nn.Module) -> bool:
    """Return whether a module's only parameters are a 1-D `weight` and optionally a `bias` of the same size.

    This is only a structural test; `probe` later compares each layer's rule with autograd.
    """
    parameters = dict(module.named_parameters())
    weight = parameters.get("weight")
    return (
        weight is not None
        and weight.dim() == 1
        and parameters.keys() <= {"weight", "bias"}
        and all(parameter.shape == weight.shape for parameter in parameters.values())
    )


def norm_terms(module: nn.Module, call: Call, delta: Tensor) -> dict[str, RowSum]:
    """Return the terms of y_t = x̂_t ⊙ w + b or y_t = x̂_t ⊙ (1 + w) + b, given δ (T, D): ∂L/∂w = Σ_t δ_t ⊙ x̂_t.

    x̂ is the layer's output at w = 1 minus its output at w = 0, both with b = 0. This is exact for any normalisation.
    The result is empty if the weight does not match the last dimension of the output.
    """
    parameters = dict(module.named_parameters())
    if delta.shape[1:] != parameters["weight"].shape:
        return {}
    normalized = _output(module, call, 1.0) - _output(module, call, 0.0)
    terms = {"weight": RowSum(delta * normalized.reshape(delta.shape))}
    if "bias" in parameters:
        terms["bias"] = bias_term(delta)
    return terms


def _output(module: nn.Module, call: Call, weight: float) -> Tensor:
    parameters = {
        name: torch.full_like(parameter, weight if name == "weight" else 0.0)
        for name, parameter in module.named_parameters()
    }
    with torch.no_grad():
        return output_with(module, parameters, call)
