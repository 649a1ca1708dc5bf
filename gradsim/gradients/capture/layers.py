"""Layers of a model: its parameter tensors by name, in model order."""

from torch import nn

from gradsim.errors import GradientError


def model_layers(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return a model's parameters by name, shared ones once under their first name.

    Raises:
        GradientError: The model has no parameters, is quantized, or is on several devices.
    """
    parameters = dict(model.named_parameters())
    if not parameters:
        raise GradientError("the model has no parameters: load a model with weights")
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
