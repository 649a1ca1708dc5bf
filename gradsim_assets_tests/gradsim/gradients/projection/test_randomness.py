"""Random numbers from keys and counters, against plain integers."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gradsim.gradients.projection import randomness
from gradsim.gradients.projection.randomness import (
    random_bits,
    random_signs,
    sample_without_replacement,
    sign_matrix,
    stable_key,
)

CPU = torch.device("cpu")
WORD = (1 << 64) - 1


def splitmix64(counter: int, key: int) -> int:
    """As published, with integers of any size."""
    z = ((counter + 1) * 0x9E3779B97F4A7C15 + key) & WORD
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & WORD
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & WORD
    return z ^ (z >> 31)


@given(st.integers(0, WORD), st.integers(0, 1 << 40))
def test_bits_are_splitmix64(key, start):
    bits = random_bits(start, 5, key, CPU)
    assert [value & WORD for value in bits.tolist()] == [splitmix64(start + place, key) for place in range(5)]


def test_bits_do_not_depend_on_chunks(monkeypatch):
    bits = random_bits(3, 10_000, 7, CPU)
    monkeypatch.setattr(randomness, "_CHUNK", 701)
    assert torch.equal(random_bits(3, 10_000, 7, CPU), bits)


def test_signs_are_the_bits_lowest_first():
    word = splitmix64(2, key=9)
    assert random_signs(128, 64, 9, CPU).tolist() == [1.0 if not word >> place & 1 else -1.0 for place in range(64)]


def test_signs_are_balanced_and_independent():
    signs = sign_matrix(64, 1000, 5, CPU)
    assert abs(float(signs.mean())) < 5 / np.sqrt(signs.numel())
    rows = signs @ signs.T / signs.shape[1] - torch.eye(64)
    assert float(rows.abs().max()) < 6 / np.sqrt(signs.shape[1])


def test_a_sample_has_each_number_once_and_every_number_is_as_likely():
    counts = np.zeros(30)
    for seed in range(4000):
        drawn = sample_without_replacement(30, 6, stable_key(seed), CPU)
        assert drawn.tolist() == sorted(set(drawn.tolist()))
        counts[drawn.numpy()] += 1
    expected = 4000 * 6 / 30
    assert np.abs(counts - expected).max() < 5 * np.sqrt(expected)


@pytest.mark.parametrize("count", [1, 30])
def test_a_sample_may_be_one_or_all(count):
    assert len(sample_without_replacement(30, count, 1, CPU)) == count


def test_keys_depend_on_every_part():
    keys = {
        stable_key(42, "sjlt", "layer", 512),
        stable_key(43, "sjlt", "layer", 512),
        stable_key(42, "mask", "layer", 512),
        stable_key(42, "sjlt", "other", 512),
        stable_key(42, "sjlt", "layer", 1024),
    }
    assert len(keys) == 5
