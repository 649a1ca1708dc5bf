"""Random numbers that follow from a key and a counter alone: the same in every process and on every device."""

import hashlib
import json

import numpy as np
import torch
from torch import Tensor

# Counters that are turned into random bits at a time.
_CHUNK = 1 << 20

SIGNS_PER_WORD = 64


def stable_key(*parts: int | str) -> int:
    """64 bits from SHA-256 of the parts as JSON: the same in every process."""
    digest = hashlib.sha256(json.dumps(parts).encode()).digest()
    return int.from_bytes(digest[:8], "little")


def random_bits(start: int, count: int, key: int, device: torch.device) -> Tensor:
    """64 random bits for each of the counters `start` to `start + count`, as int64 (count,).

    SplitMix64 (Steele, Lea and Flood, 2014) started at `key`, counter by counter: integers only, which wrap around.
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
    """+1 or -1 for each of the counters, as float32 (count,); `start` and `count` are multiples of 64."""
    words = random_bits(start // SIGNS_PER_WORD, count // SIGNS_PER_WORD, key, device)
    return _SIGNS_OF_BYTE.to(device).index_select(0, words.view(torch.uint8).int()).view(-1)


def sign_matrix(rows: int, columns: int, key: int, device: torch.device) -> Tensor:
    """Signs as float32 (rows, columns)."""
    count = rows * columns
    return random_signs(0, -(-count // SIGNS_PER_WORD) * SIGNS_PER_WORD, key, device)[:count].view(rows, columns)


# Bytes for each number that is sorted: the numbers, the sorted ones, their places, and the sort's own.
SORTING_BYTES = 32


def sample_without_replacement(population: int, count: int, key: int, device: torch.device) -> Tensor:
    """Different numbers below `population`, each set of them as likely as another: int64 (count,), ascending."""
    order = torch.sort(random_bits(0, population, key, device), stable=True).indices
    return order[:count].sort().values


def shifted_right(bits: Tensor, by: int) -> Tensor:
    """A shift that fills with zeros, which int64's own does not."""
    return (bits >> by).bitwise_and_((1 << (64 - by)) - 1)


def _signed(number: int) -> int:
    """An unsigned number of 64 bits as the signed one of the same bits."""
    return number - (1 << 64) if number >= 1 << 63 else number


# (256, 8): every bit of a byte, the lowest first, as a sign.
_SIGNS_OF_BYTE = torch.from_numpy(
    1 - 2 * np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1, bitorder="little").astype(np.float32)
)
