"""Counter-based random numbers: identical in every process and on every device for the same key and counter."""

import hashlib
import json

import numpy as np
import torch
from torch import Tensor

# Counters converted to random bits at a time.
_CHUNK = 1 << 20

SIGNS_PER_WORD = 64


def stable_key(*parts: int | str) -> int:
    """Return the first 64 bits of the SHA-256 of the parts as JSON, which is identical in every process."""
    digest = hashlib.sha256(json.dumps(parts).encode()).digest()
    return int.from_bytes(digest[:8], "little")


def random_bits(start: int, count: int, key: int, device: torch.device) -> Tensor:
    """Return 64 random bits for each counter in [`start`, `start + count`), as int64 (count,).

    The generator is SplitMix64 (Steele, Lea and Flood, 2014) with the seed `key`, in wrapping integer arithmetic.
    """
    bits = torch.empty(count, dtype=torch.int64, device=device)
    for first in range(0, count, _CHUNK):
        part = bits[first : first + _CHUNK]
        torch.arange(start + first + 1, start + first + 1 + len(part), out=part)
        part.mul_(_signed(0x9E3779B97F4A7C15)).add_(_signed(key))
        part.bitwise_xor_(shifted_right(part, 30)).mul_(_signed(0xBF58476D1CE4E5B9))
        part.bitwise_xor_(shifted_right(part, 27)).mul_(_signed(0x94D049BB133111EB))
        part.bitwise_xor_(shifted_right(part, 31))
    return bits


def random_signs(start: int, count: int, key: int, device: torch.device) -> Tensor:
    """Return +1 or -1 for each counter, as float32 (count,); `start` and `count` must be multiples of 64."""
    words = random_bits(start // SIGNS_PER_WORD, count // SIGNS_PER_WORD, key, device)
    return _SIGNS_OF_BYTE.to(device).index_select(0, words.view(torch.uint8).int()).view(-1)


def sign_matrix(rows: int, columns: int, key: int, device: torch.device) -> Tensor:
    """Return random signs as float32 (rows, columns)."""
    count = rows * columns
    return random_signs(0, -(-count // SIGNS_PER_WORD) * SIGNS_PER_WORD, key, device)[:count].view(rows, columns)


# Bytes per sorted number: the input, the output, its indices and the sort's workspace.
SORTING_BYTES = 32


def sample_without_replacement(population: int, count: int, key: int, device: torch.device) -> Tensor:
    """Return distinct numbers below `population` in ascending order, int64 (count,); all subsets are equally likely."""
    order = torch.sort(random_bits(0, population, key, device), stable=True).indices
    return order[:count].sort().values


def shifted_right(bits: Tensor, by: int) -> Tensor:
    """Return bits after a logical right shift; the shift operator of int64 would copy the sign bit."""
    return (bits >> by).bitwise_and_((1 << (64 - by)) - 1)


def _signed(number: int) -> int:
    """Return the signed 64-bit integer with the same bits as an unsigned one."""
    return number - (1 << 64) if number >= 1 << 63 else number


# (256, 8): bits of each byte as signs, lowest bit first.
_SIGNS_OF_BYTE = torch.from_numpy(
    1 - 2 * np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1, bitorder="little").astype(np.float32)
)
