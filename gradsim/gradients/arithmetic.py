"""Inner products and sums that are accurate in float32 and the same in every run."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

# Elements that are widened to float64 at a time. On a processor they fit its cache, and torch handles them in one
# thread: waking a second one costs more, by far more when another process has the core. A GPU gets large pieces,
# because it should compute and not launch.
_CHUNK = {"cpu": 1 << 15}
_CHUNK_ON_ACCELERATOR = 1 << 24

_cuda: Any = torch.backends.cuda
_cudnn: Any = torch.backends.cudnn
_mkldnn: Any = torch.backends.mkldnn
_FLOAT32_BACKENDS = (_cuda.matmul, _cudnn.conv, _cudnn.rnn, _mkldnn.matmul, _mkldnn.conv, _mkldnn.rnn)


def inner(a: Tensor, b: Tensor) -> Tensor:
    """Inner product of two tensors of one shape, every product and sum in float64 (0-d)."""
    a, b = a.reshape(-1), b.reshape(-1)
    chunk = _CHUNK.get(a.device.type, _CHUNK_ON_ACCELERATOR)
    total = a.new_zeros((), dtype=torch.float64)
    for start in range(0, len(a), chunk):
        part = slice(start, start + chunk)
        total = total + (a[part].double() * b[part]).sum()
    return total


def segment_sums(values: Tensor, lengths: Tensor) -> Tensor:
    """Sums of consecutive runs of rows: values (n, ...), lengths (m,) that add up to n -> (m, ...).

    No atomic additions: the order of every sum is that of the rows, on every device.
    """
    if len(lengths) == 0:
        return values[:0]
    # unsafe: no check of the lengths, which would wait for the device
    return torch.segment_reduce(values, "sum", lengths=lengths, axis=0, unsafe=True)


@contextmanager
def plain_arithmetic(device: torch.device) -> Iterator[None]:
    """Float32 is float32 and autograd records, whatever the caller has set; the caller's settings come back.

    No TF32 or bfloat16 inside of matrix products, no autocast, neither `no_grad` nor `inference_mode`.
    """
    before = [backend.fp32_precision for backend in _FLOAT32_BACKENDS]
    for backend in _FLOAT32_BACKENDS:
        backend.fp32_precision = "ieee"
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
