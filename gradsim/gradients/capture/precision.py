"""Precision of a run: the model's dtype, and the rounding of its matrix products."""

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
from gradsim.models.loading import DTYPES

_cuda: Any = torch.backends.cuda
_cudnn: Any = torch.backends.cudnn
_mkldnn: Any = torch.backends.mkldnn
_FLOAT32_BACKENDS = (_cuda.matmul, _cudnn.conv, _cudnn.rnn, _mkldnn.matmul, _mkldnn.conv, _mkldnn.rnn)


@dataclass(frozen=True)
class Precision:
    """Precision of a comparison. Dots always accumulate in float64.

    Attributes:
        dtype: dtype of weights, activations and gradients.
        products: precision of float32 matrix products, "ieee" or "tf32". TF32 keeps ten mantissa bits of each factor;
            it has no effect on devices without support.
    """

    dtype: torch.dtype
    products: str = "ieee"


PRECISIONS = MappingProxyType(
    {name: Precision(dtype, "tf32" if name == "tf32" else "ieee") for name, dtype in DTYPES.items()}
)


MEMORISED = 0.5
"""Mean loss in nats below which a sample counts as memorised."""


def precision_of(name: str) -> Precision:
    """Return the precision with this name.

    Raises:
        GradientError: The name is not in `PRECISIONS`.
    """
    if name not in PRECISIONS:
        raise GradientError(f"precision is {name!r}: choose one of {', '.join(PRECISIONS)}")
    return PRECISIONS[name]


@contextmanager
def plain_arithmetic(device: torch.device, products: str = "ieee") -> Iterator[None]:
    """Override the caller's float32 precision, autocast, `no_grad` and `inference_mode` settings inside the context.

    Args:
        device: device to disable autocast on.
        products: precision of float32 matrix products, as in `Precision`.
    """
    before = [backend.fp32_precision for backend in _FLOAT32_BACKENDS]
    for backend in _FLOAT32_BACKENDS:
        # Request TF32 from NVIDIA backends only: a CPU backend might use bfloat16 instead.
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
    """Cast a model to a dtype as transformers would load it, and restore it exactly on exit.

    Buffers such as rotary frequencies are never narrowed, and neither are parameters that transformers keeps in float32
    in a bfloat16 model. Expert stacks run in an implementation that supports the dtype.
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
    """Return the dtype that a parameter has in a model loaded by transformers in `dtype`."""
    if dtype != torch.bfloat16:
        return dtype
    if next(model.parameters()).dtype == dtype:
        return parameter.dtype  # wider parameters of a bfloat16 model are wider on purpose
    kept = getattr(model, "_keep_in_fp32_modules_strict", None) or ()
    return torch.float32 if any(re.search(pattern.replace("*", ".*"), name) for pattern in kept) else dtype
