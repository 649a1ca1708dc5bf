"""The number format that a model runs in."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from gradsim.errors import GradientError

_DTYPES = {"float32": torch.float32, "float64": torch.float64}


def dtype_of(precision: str) -> torch.dtype:
    """The format of a precision's name.

    Raises:
        GradientError: no such precision.
    """
    if precision not in _DTYPES:
        raise GradientError(f"precision is {precision!r}: choose one of {', '.join(_DTYPES)}")
    return _DTYPES[precision]


@contextmanager
def running_in(model: nn.Module, dtype: torch.dtype) -> Iterator[None]:
    """Parameters and buffers in a format; those that were in another are put back bit by bit."""
    parameters = [(parameter, parameter.data) for parameter in model.parameters() if parameter.dtype != dtype]
    buffers = [
        (module, name, buffer)
        for module in model.modules()
        for name, buffer in module.named_buffers(recurse=False, remove_duplicate=False)
        if buffer.is_floating_point() and buffer.dtype != dtype
    ]
    try:
        for parameter, data in parameters:
            parameter.data = data.to(dtype)
        for module, name, buffer in buffers:
            setattr(module, name, buffer.to(dtype))
        yield
    finally:
        for parameter, data in parameters:
            parameter.data = data
        for module, name, buffer in buffers:
            setattr(module, name, buffer)
