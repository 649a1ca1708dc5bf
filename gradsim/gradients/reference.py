"""Reference gradients: plain autograd, one sample at a time, without the engine's rules or batches."""

from collections.abc import Collection, Sequence

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from gradsim.gradients.capture.eager import experts_that_compute_in, uncompiled_model, uncompiled_modules
from gradsim.gradients.capture.encoding import MASKED, Sample
from gradsim.gradients.capture.layers import model_layers
from gradsim.models.fresh_state import fresh_state
from gradsim.study import Reduction


def reference_gradient(
    model: PreTrainedModel,
    sample: Sample,
    layers: Collection[str] | None = None,
    reduction: Reduction = "mean",
) -> dict[str, Tensor]:
    """Return the gradient of a sample's cross-entropy over its unmasked labels, for every layer in model order.

    The model runs in its own dtype and in eval mode. It is left unchanged, including its buffers.

    Args:
        model: A causal language model.
        sample: The sample.
        layers: Names of the layers, as for `compare`.
        reduction: Whether the loss is the mean or the sum over the labels.

    Raises:
        GradientError: The model lacks a layer.
    """
    model = uncompiled_model(model)
    with uncompiled_modules(model), experts_that_compute_in(model, model.dtype):
        return _gradient(model, sample, model_layers(model, layers), reduction)


def _gradient(
    model: PreTrainedModel, sample: Sample, parameters: dict[str, nn.Parameter], reduction: Reduction
) -> dict[str, Tensor]:
    flags = [parameter.requires_grad for parameter in parameters.values()]
    modes = [(module, module.training) for module in model.modules()]
    try:
        model.train(False)
        for parameter in parameters.values():
            parameter.requires_grad_(True)
        first = next(iter(parameters.values()))
        device = first.device
        tokens = torch.as_tensor(sample.input_ids, dtype=torch.long, device=device)
        labels = torch.as_tensor(sample.labels, dtype=torch.long, device=device)
        with torch.enable_grad(), fresh_state(model):
            logits = model(input_ids=tokens[None], use_cache=False).logits[0, :-1]
            # In float64, because softmax - 1 cancels in float32 when the model is confident of a label.
            loss = torch.nn.functional.cross_entropy(
                logits.double(), labels[1:], ignore_index=MASKED, reduction=reduction
            )
            found: Sequence[Tensor | None] = [None] * len(parameters)
            if loss.requires_grad:  # otherwise no layer took part
                found = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True)
    finally:
        for module, mode in modes:
            module.training = mode
        for parameter, flag in zip(parameters.values(), flags, strict=True):
            parameter.requires_grad_(flag)
    return {
        name: torch.zeros_like(parameter) if gradient is None else gradient.to_dense()
        for (name, parameter), gradient in zip(parameters.items(), found, strict=True)
    }


def reference_dots(a: dict[str, Tensor], b: dict[str, Tensor]) -> list[float]:
    """Return the inner product of two samples' gradients for every layer, in float64."""
    return [float((a[layer].double() * b[layer].double()).sum()) for layer in a]
