"""Normalisation layers: whatever is affine, element by element, in a weight along the last dimension."""

import torch
from torch import Tensor, nn

from gradsim.gradients.rules.bias import bias_term
from gradsim.gradients.rules.call import Call, output_with
from gradsim.gradients.rules.terms import RowSum


def looks_like_norm(module: nn.Module) -> bool:
    """Whether a module's only parameters are a 1-D `weight` and perhaps a `bias` of the same size.

    Structure alone proves nothing: `check` compares the first gradient of every layer with autograd's.
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
    """y_t = x̂_t ⊙ w + b or x̂_t ⊙ (1 + w) + b: ∂L/∂w = Σ_t δ_t ⊙ x̂_t; δ (T, D).

    x̂ is the layer's own output at w = 1 less that at w = 0, both with b = 0: exact for every such layer, whatever it
    normalises by. Nothing where the weight does not lie along the last dimension.
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
