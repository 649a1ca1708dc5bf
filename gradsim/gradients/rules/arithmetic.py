"""Inner products and sums that are accurate in float32 and the same in every run."""

import torch
from torch import Tensor

CHUNK = 256
"""Products that are added up in the factors' own format before float64 takes over."""

# Below, one pass more over the elements costs less than one more operation's start.
_SMALL = 1 << 18


def inner(a: Tensor, b: Tensor) -> Tensor:
    """Inner product of two tensors of one shape: float64 (0-d), summed in float32 for at most `CHUNK` elements."""
    a, b = wide(a), wide(b)
    if a.numel() <= _SMALL:
        return (a * b).sum(dtype=torch.float64)
    a, b = a.reshape(-1), b.reshape(-1)
    whole = len(a) // CHUNK * CHUNK
    chunks = torch.bmm(a[:whole].view(-1, 1, CHUNK), b[:whole].view(-1, CHUNK, 1))
    return chunks.sum(dtype=torch.float64) + (a[whole:] * b[whole:]).sum(dtype=torch.float64)


def chunk_products(a: Tensor, b: Tensor) -> Tensor:
    """Inner products of every row of a (m, n) with every row of b (k, n), chunk by chunk: (n / CHUNK, m, k)."""
    left = wide(a).view(len(a), -1, CHUNK).transpose(0, 1)
    right = wide(b).view(len(b), -1, CHUNK).permute(1, 2, 0)
    return torch.bmm(left, right)


def chunk_squares(a: Tensor) -> Tensor:
    """Inner products of every row of a (m, n) with itself, chunk by chunk: (n / CHUNK, m)."""
    norms: Tensor = torch.linalg.vector_norm(wide(a).view(len(a), -1, CHUNK), dim=2)
    return norms.square().T


def segment_sums(values: Tensor, lengths: Tensor) -> Tensor:
    """Sums of consecutive runs of rows: values (n, ...), lengths (m,) that add up to n -> (m, ...).

    No atomic additions: the order of every sum is that of the rows, on every device.
    """
    if len(lengths) == 0:
        return values[:0]
    # unsafe: no check of the lengths, which would wait for the device
    return torch.segment_reduce(values, "sum", lengths=lengths, axis=0, unsafe=True)


def wide(values: Tensor) -> Tensor:
    """At least float32: products of shorter formats are exact in it."""
    return values.float() if values.dtype in (torch.bfloat16, torch.float16) else values
