"""Draws from a model's distribution that depend on a row's own seed and nothing else.

The likeliest token after adding Gumbel noise to each logit is a draw from the softmax of the logits. A token's noise is
a function of the row's seed, the number of tokens drawn before and the token, in whole numbers up to the last steps:
the same whatever shares the batch, wherever rows are read again, and on every device. So drawn tokens depend on
rounding no more than likeliest ones do; of draws by cumulated probabilities that is not true.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from transformers import LogitsProcessor


@dataclass(frozen=True)
class Sampling:
    """Draws from the model's distribution, not its likeliest token.

    Attributes:
        temperature: by which logits are divided; above 0.
        seeds: of each prompt. Its answer depends on this seed, its prompt and the model.
    """

    temperature: float
    seeds: Sequence[int]

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise ValueError(f"temperature {self.temperature}: not above 0")


class Noise(LogitsProcessor):
    """Makes the largest score of each row a draw from its distribution.

    Args:
        temperature: by which logits are divided.
        seeds: (rows,)
        drawn: (rows,) tokens that each row has drawn before; one more with each call.
    """

    def __init__(self, temperature: float, seeds: torch.Tensor, drawn: torch.Tensor) -> None:
        self._temperature = temperature
        self._seeds = seeds
        self._drawn = drawn.clone()

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        """Scores (rows, vocabulary), divided by the temperature, with noise."""
        noise = gumbel(self._seeds, self._drawn, scores.shape[-1])
        self._drawn += 1
        return cast(torch.FloatTensor, noise.add_(scores, alpha=1 / self._temperature))


def gumbel(seeds: torch.Tensor, drawn: torch.Tensor, vocabulary: int) -> torch.Tensor:
    """Standard Gumbel noise in float64: (rows, vocabulary), of seeds (rows,) and counts of tokens (rows,)."""
    bits = random_bits(seeds, drawn, vocabulary)
    # 52 of them: the largest is still below 1 in float64.
    uniform = (bits.bitwise_right_shift_(12).bitwise_and_((1 << 52) - 1)).double().add_(0.5).mul_(2.0**-52)
    return uniform.log_().neg_().log_().neg_()


def random_bits(seeds: torch.Tensor, drawn: torch.Tensor, count: int) -> torch.Tensor:
    """The first outputs of the generator SplitMix64 from states of their own: (rows, count) int64, all bits random."""
    states = _mixed(_mixed(seeds + _STEP) + drawn)
    steps = torch.arange(1, count + 1, device=seeds.device) * _STEP
    return _mixed(states[:, None] + steps)


def as_int64(number: int) -> int:
    """The low 64 bits of a whole number, as a signed one."""
    return (number + (1 << 63)) % (1 << 64) - (1 << 63)


_STEP = as_int64(0x9E3779B97F4A7C15)
_FACTORS = as_int64(0xBF58476D1CE4E5B9), as_int64(0x94D049BB133111EB)


def _mixed(numbers: torch.Tensor) -> torch.Tensor:
    """SplitMix64's output of a state; int64 wraps around as its unsigned numbers do."""
    numbers = (numbers ^ _shifted(numbers, 30)).mul_(_FACTORS[0])
    numbers = numbers.bitwise_xor_(_shifted(numbers, 27)).mul_(_FACTORS[1])
    return numbers.bitwise_xor_(_shifted(numbers, 31))


def _shifted(numbers: torch.Tensor, bits: int) -> torch.Tensor:
    """To the right, filled with zeros: torch's own shift repeats the sign."""
    return (numbers >> bits).bitwise_and_((1 << (64 - bits)) - 1)
