"""The number format that a model runs in, and how its matrix products are rounded."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from gradsim.errors import GradientError
from gradsim.gradients.capture.eager import experts_that_compute_in

_cuda: Any = torch.backends.cuda
_cudnn: Any = torch.backends.cudnn
_mkldnn: Any = torch.backends.mkldnn
_FLOAT32_BACKENDS = (_cuda.matmul, _cudnn.conv, _cudnn.rnn, _mkldnn.matmul, _mkldnn.conv, _mkldnn.rnn)


@dataclass(frozen=True)
class Precision:
    """How a comparison computes. Dots are added up in float64, whatever the precision.

    Attributes:
        dtype: of weights, activations and gradients.
        products: of float32 matrix products: "ieee", or "tf32", which keeps ten bits of each factor's fraction on
            devices that have it and changes nothing on others.
    """

    dtype: torch.dtype
    products: str = "ieee"


PRECISIONS = MappingProxyType(
    {
        "float32": Precision(torch.float32),
        "tf32": Precision(torch.float32, "tf32"),
        "bfloat16": Precision(torch.bfloat16),
        "float64": Precision(torch.float64),
    }
)


MEMORISED = 0.5
"""Mean loss in nats below which a sample counts as memorised."""


def precision_of(name: str) -> Precision:
    """The precision of a name.

    Raises:
        GradientError: no such precision.
    """
    if name not in PRECISIONS:
        raise GradientError(f"precision is {name!r}: choose one of {', '.join(PRECISIONS)}")
    return PRECISIONS[name]


@contextmanager
def plain_arithmetic(device: torch.device, products: str = "ieee") -> Iterator[None]:
    """Float32 is as precise as asked and autograd records, whatever the caller has set; that comes back.

    Neither autocast, `no_grad` nor `inference_mode`.
    """
    before = [backend.fp32_precision for backend in _FLOAT32_BACKENDS]
    for backend in _FLOAT32_BACKENDS:
        # Only NVIDIA's backends are asked for TF32: a processor's might take bfloat16 for it.
        backend.fp32_precision = products if backend in (_cuda.matmul, _cudnn.conv, _cudnn.rnn) else "ieee"
    try:
        with (
            torch.inference_mode(False),
            torch.enable_grad(),
            torch.autocast(device.type, enabled=False),
        ):
            yield
    finally:
        for backend, precision in zip(_FLOAT32_BACKENDS, before, strict=True):
            backend.fp32_precision = precision


@contextmanager
def running_in(model: PreTrainedModel, dtype: torch.dtype) -> Iterator[None]:
    """Cast a model to a number format as transformers loads it; afterwards everything is as it was, bit by bit.

    Buffers such as rotary frequencies are never narrowed, and neither is what a model in bfloat16 keeps in float32.
    Stacks of experts run in a way that knows the format.
    """
    parameters = [
        (parameter, parameter.data, wanted)
        for name, parameter in model.named_parameters()
        if parameter.dtype != (wanted := _loaded_format(model, name, parameter, dtype))
    ]
    buffers = [
        (module, name, buffer)
        for module in model.modules()
        for name, buffer in module.named_buffers(recurse=False, remove_duplicate=False)
        if buffer.is_floating_point() and torch.promote_types(buffer.dtype, dtype) != buffer.dtype
    ]
    try:
        for parameter, data, wanted in parameters:
            parameter.data = data.to(wanted)
        for module, name, buffer in buffers:
            setattr(module, name, buffer.to(dtype))
        with experts_that_compute_in(model, dtype):
            yield
    finally:
        for parameter, data, _ in parameters:
            parameter.data = data
        for module, name, buffer in buffers:
            setattr(module, name, buffer)


def _loaded_format(model: nn.Module, name: str, parameter: Tensor, dtype: torch.dtype) -> torch.dtype:
    """Return the format of a parameter in a model that transformers loads in `dtype`."""
    if dtype != torch.bfloat16:
        return dtype
    if next(model.parameters()).dtype == dtype:
        return parameter.dtype  # what is wider in a model that is in bfloat16 already was left so on purpose
    kept = getattr(model, "_keep_in_fp32_modules_strict", None) or ()
    return torch.float32 if any(re.search(pattern.replace("*", ".*"), name) for pattern in kept) else dtype
