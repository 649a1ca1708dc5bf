"""Inner products and sums that are accurate for float32 inputs and deterministic."""

import torch
from torch import Tensor

CHUNK = 256
"""Number of products that are summed in the factors' own dtype before float64 takes over."""

# For fewer elements, another pass over them costs less than launching another operation.
_SMALL = 1 << 18


def inner(a: Tensor, b: Tensor) -> Tensor:
    """Return the inner product of two tensors of equal shape, float64 (0-d).

    Sums in the factors' own dtype span at most `CHUNK` elements.
    """
    a, b = wide(a), wide(b)
    if a.numel() <= _SMALL:
        return (a * b).sum(dtype=torch.float64)
    a, b = a.reshape(-1), b.reshape(-1)
    whole = len(a) // CHUNK * CHUNK
    chunks = torch.bmm(a[:whole].view(-1, 1, CHUNK), b[:whole].view(-1, CHUNK, 1))
    return chunks.sum(dtype=torch.float64) + (a[whole:] * b[whole:]).sum(dtype=torch.float64)


def chunk_products(a: Tensor, b: Tensor) -> Tensor:
    """Return the inner products of all rows of a (m, n) and b (k, n), chunk by chunk, (n / CHUNK, m, k)."""
    left = wide(a).view(len(a), -1, CHUNK).transpose(0, 1)
    right = wide(b).view(len(b), -1, CHUNK).permute(1, 2, 0)
    return torch.bmm(left, right)


def chunk_squares(a: Tensor) -> Tensor:
    """Return the inner product of each row of a (m, n) with itself, chunk by chunk, (n / CHUNK, m)."""
    norms: Tensor = torch.linalg.vector_norm(wide(a).view(len(a), -1, CHUNK), dim=2)
    return norms.square().T


def segment_sums(values: Tensor, lengths: Tensor) -> Tensor:
    """Return the sums of consecutive runs of rows, (m, ...).

    No atomic additions are used: each sum follows the order of the rows on every device.

    Args:
        values: (n, ...) rows.
        lengths: (m,) run lengths that add up to n.
    """
    if len(lengths) == 0:
        return values[:0]
    # unsafe skips the check of the lengths, which would synchronize with the device
    return torch.segment_reduce(values, "sum", lengths=lengths, axis=0, unsafe=True)


def wide(values: Tensor) -> Tensor:
    """Return values in at least float32, in which products of half-precision numbers are exact."""
    return values.float() if values.dtype in (torch.bfloat16, torch.float16) else values
