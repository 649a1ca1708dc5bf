"""The layers of a model: its parameter tensors by name, in model order."""

from torch import nn

from gradsim.errors import GradientError


def model_layers(model: nn.Module) -> dict[str, nn.Parameter]:
    """A model's parameters, each shared one under its first name.

    Raises:
        GradientError: a model without parameters, with quantized ones, or on several devices.
    """
    parameters = dict(model.named_parameters())
    if not parameters:
        raise GradientError("the model has no parameters: load one that has")
    if getattr(model, "hf_quantizer", None) is not None:
        raise GradientError("the model is quantized, so its weights have no gradients: load it unquantized")
    for name, parameter in parameters.items():
        if not parameter.is_floating_point():
            raise GradientError(
                f"layer {name} holds {parameter.dtype}, so it has no gradient: load the model unquantized"
            )
    devices = sorted({str(parameter.device) for parameter in parameters.values()})
    if len(devices) > 1:
        raise GradientError(f"the model lies on {', '.join(devices)}: load it on one device (no device_map)")
    return parameters
