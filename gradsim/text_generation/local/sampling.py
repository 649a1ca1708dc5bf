"""Sampling that depends only on a row's own seed.

The argmax after adding Gumbel noise to the logits is a sample from their softmax (the Gumbel-max trick). The noise of a
token is a function of the row's seed, the number of tokens drawn before, and the token id. It is computed in integers
up to the last steps, so it does not depend on the batch, on rereading, or on the device. Sampled tokens are therefore
as robust to rounding as greedy ones, unlike samples from cumulative probabilities.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from transformers import LogitsProcessor


@dataclass(frozen=True)
class Sampling:
    """Parameters of sampling.

    Attributes:
        temperature: divisor of the logits, greater than 0.
        seeds: seed of each prompt. An answer depends only on its seed, its prompt and the model.
    """

    temperature: float
    seeds: Sequence[int]

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise ValueError(f"temperature is {self.temperature}; it must be greater than 0")


class Noise(LogitsProcessor):
    """Adds noise to scores so that the argmax of each row is a sample from its distribution.

    Args:
        temperature: divisor of the logits.
        seeds: (rows,) seeds.
        drawn: (rows,) numbers of tokens drawn before; incremented by each call.
    """

    def __init__(self, temperature: float, seeds: torch.Tensor, drawn: torch.Tensor) -> None:
        self._temperature = temperature
        self._seeds = seeds
        self._drawn = drawn.clone()

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        """Return scores (rows, vocabulary), divided by the temperature, plus noise."""
        noise = gumbel(self._seeds, self._drawn, scores.shape[-1])
        self._drawn += 1
        return cast(torch.FloatTensor, noise.add_(scores, alpha=1 / self._temperature))


def gumbel(seeds: torch.Tensor, drawn: torch.Tensor, vocabulary: int) -> torch.Tensor:
    """Return standard Gumbel noise, (rows, vocabulary) float64, for (rows,) seeds and counts of drawn tokens."""
    bits = random_bits(seeds, drawn, vocabulary)
    # With 52 bits, the largest value is still below 1 in float64.
    uniform = (bits.bitwise_right_shift_(12).bitwise_and_((1 << 52) - 1)).double().add_(0.5).mul_(2.0**-52)
    return uniform.log_().neg_().log_().neg_()


def random_bits(seeds: torch.Tensor, drawn: torch.Tensor, count: int) -> torch.Tensor:
    """Return the first outputs of SplitMix64 for each row's own initial state, (rows, count) int64."""
    states = _mixed(_mixed(seeds + _STEP) + drawn)
    steps = torch.arange(1, count + 1, device=seeds.device) * _STEP
    return _mixed(states[:, None] + steps)


def as_int64(number: int) -> int:
    """Return the low 64 bits of an integer as a signed integer."""
    return (number + (1 << 63)) % (1 << 64) - (1 << 63)


_STEP = as_int64(0x9E3779B97F4A7C15)
_FACTORS = as_int64(0xBF58476D1CE4E5B9), as_int64(0x94D049BB133111EB)


def _mixed(numbers: torch.Tensor) -> torch.Tensor:
    """Return SplitMix64's output for each state; int64 wraps around like its unsigned arithmetic."""
    numbers = (numbers ^ _shifted(numbers, 30)).mul_(_FACTORS[0])
    numbers = numbers.bitwise_xor_(_shifted(numbers, 27)).mul_(_FACTORS[1])
    return numbers.bitwise_xor_(_shifted(numbers, 31))


def _shifted(numbers: torch.Tensor, bits: int) -> torch.Tensor:
    """Shift right and fill with zeros; torch's own shift fills with the sign bit."""
    return (numbers >> bits).bitwise_and_((1 << (64 - bits)) - 1)
