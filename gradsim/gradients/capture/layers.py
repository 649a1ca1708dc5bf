"""Layers of a model: its parameter tensors by name, in model order."""

from collections.abc import Collection, Sequence

from torch import nn

from gradsim.errors import GradientError


def model_layers(model: nn.Module, names: Collection[str] | None = None) -> dict[str, nn.Parameter]:
    """Return a model's parameters by name, shared ones once under their first name.

    Args:
        model: causal language model.
        names: names of the parameters to return; None for all.

    Raises:
        GradientError: The model has no parameters or none with one of these names, is quantized, or is on several
            devices.
    """
    parameters = dict(model.named_parameters())
    if not parameters:
        raise GradientError("the model has no parameters: load a model with weights")
    if names is not None:
        for unknown in (name for name in names if name not in parameters):
            raise GradientError(f"the model has no layer {unknown!r}: choose names of `model.named_parameters()`")
        chosen = frozenset(names)
        parameters = {name: parameter for name, parameter in parameters.items() if name in chosen}
        if not parameters:
            raise GradientError("layers is empty: name at least one layer, or use None for all")
    if getattr(model, "hf_quantizer", None) is not None:
        raise GradientError("the model is quantized, so its weights have no gradients: load it unquantized")
    for name, parameter in parameters.items():
        if not parameter.is_floating_point():
            raise GradientError(
                f"layer {name} has dtype {parameter.dtype}, so it has no gradient: load the model unquantized"
            )
    devices = sorted({str(parameter.device) for parameter in parameters.values()})
    if len(devices) > 1:
        raise GradientError(f"the model is split across {', '.join(devices)}: load it on one device (no device_map)")
    return parameters


def passed_layers(model: nn.Module, layers: Sequence[str]) -> list[str]:
    """Return the layers that a backward pass to these layers goes through: all from the lowest one on.

    Args:
        model: causal language model, whose layers are in the order of the forward pass.
        layers: names of layers, in model order.
    """
    names = list(model_layers(model))
    return names[names.index(layers[0]) :]
