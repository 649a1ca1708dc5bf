"""Inputs of the engine's benchmarks: random OLMo models, and random samples as long as LIMA's."""

from dataclasses import dataclass
from typing import Final, TypedDict

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import OlmoConfig, OlmoForCausalLM

Integers = NDArray[np.int64]
Model = OlmoForCausalLM

# Percentiles 0 to 100 of the 988 LIMA samples' tokens (whole dialogues, 803,820 in all) under a BPE of 4,096 entries,
# and deciles of their prompts' tokens, which the loss ignores. The two lengths are uncorrelated (r = 0.03).
# fmt: off
LIMA_TOKENS = (
    48, 62, 71, 91, 105, 119, 138, 151, 164, 177, 195, 203, 219, 234, 239, 248, 262, 274, 289, 306, 312, 341,
    349, 356, 365, 377, 389, 394, 401, 408, 414, 421, 427, 434, 441, 454, 456, 462, 468, 480, 490, 498, 513,
    520, 528, 536, 545, 556, 562, 566, 576, 583, 594, 601, 613, 621, 630, 636, 654, 663, 674, 686, 701, 708,
    723, 734, 750, 767, 790, 818, 833, 861, 877, 901, 920, 948, 983, 1010, 1052, 1105, 1143, 1192, 1234, 1294,
    1361, 1414, 1521, 1586, 1682, 1790, 1918, 1987, 2095, 2254, 2323, 2474, 2645, 2807, 2990, 3374, 4485,
)
LIMA_PROMPT_TOKENS = (21, 25, 28, 31, 37, 44, 56, 74, 111, 182, 2201)
# fmt: on
MASKED = -100


class Shape(TypedDict, total=False):
    """Size of a model: arguments of `olmo`; omitted ones take its defaults."""

    hidden: int
    layers: int
    mlp: int
    heads: int
    vocabulary: int


OLMO_1B: Final = Shape(hidden=2048, layers=16, mlp=8192, heads=16, vocabulary=50304)
"""Shape of AMD-OLMo-1B-SFT: 1,176,764,416 parameters in 113 tensors."""

TINY: Final = Shape(hidden=64, layers=2, vocabulary=512)
"""Shape for trying out a command."""


@dataclass(frozen=True)
class Sample:
    """Sample as `compare` reads it."""

    id: str
    input_ids: list[int]
    labels: list[int]


@dataclass(frozen=True)
class Workload:
    """Queries, originals, and the pairs to compare."""

    queries: list[Sample]
    originals: list[Sample]
    pairs: Integers

    @property
    def tokens(self) -> int:
        """Tokens of all unique samples."""
        return sum(len(sample.input_ids) for sample in (*self.queries, *self.originals))


def olmo(
    *,
    hidden: int = 256,
    layers: int = 8,
    mlp: int | None = None,
    vocabulary: int = 4096,
    heads: int | None = None,
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> OlmoForCausalLM:
    """Return a randomly initialized OLMo with tied embeddings; by default with 9.4 million parameters."""
    configuration = OlmoConfig(
        vocab_size=vocabulary,
        hidden_size=hidden,
        intermediate_size=mlp or 4 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads or max(1, hidden // 64),
        max_position_embeddings=8192,
        tie_word_embeddings=True,
        pad_token_id=1,
        eos_token_id=0,
    )
    with torch.random.fork_rng(devices=[]), torch.device(device):
        torch.manual_seed(0)
        model: OlmoForCausalLM = OlmoForCausalLM._from_config(configuration, dtype=dtype).eval()
    return model


def lima_like(count: int, seed: int) -> tuple[Integers, Integers]:
    """Return tokens and prompt tokens of `count` samples: shuffled quantiles of LIMA's; prompts fill at most half."""
    random = np.random.default_rng(seed)
    places = (np.arange(count) + 0.5) / count
    tokens, prompts = (
        random.permutation(np.interp(places, np.linspace(0, 1, len(quantiles)), quantiles).round().astype(np.int64))
        for quantiles in (LIMA_TOKENS, LIMA_PROMPT_TOKENS)
    )
    return tokens, np.minimum(prompts, tokens // 2)


def between(shortest: int, longest: int, count: int, seed: int) -> tuple[Integers, Integers]:
    """Return tokens and prompt tokens of `count` samples with lengths from a range; a quarter of each is its prompt."""
    tokens = np.random.default_rng(seed).permutation(np.linspace(shortest, longest, count).round().astype(np.int64))
    return tokens, tokens // 4


def samples(name: str, lengths: tuple[Integers, Integers], vocabulary: int, seed: int) -> list[Sample]:
    """Return samples of random tokens with masked prompts."""
    random = np.random.default_rng(seed)
    made = []
    for number, (length, prompt) in enumerate(zip(*lengths, strict=True)):
        tokens = random.integers(2, vocabulary, length).tolist()
        made.append(Sample(f"{name}_{number}", tokens, [MASKED] * int(prompt) + tokens[int(prompt) :]))
    return made


def lima_top_five(queries: int, vocabulary: int) -> Workload:
    """Return queries and as many originals with LIMA's lengths, and five candidates per query."""
    return Workload(
        samples("query", lima_like(queries, seed=1), vocabulary, seed=1),
        samples("original", lima_like(queries, seed=2), vocabulary, seed=2),
        top_pairs(queries, min(5, queries), seed=3),
    )


def top_pairs(count: int, candidates: int, seed: int) -> Integers:
    """Return pairs of each query with its own original and others, like BM25's: (count · candidates, 2) positions.

    A few originals are candidates of many queries, most of few. The others are therefore drawn by a popularity that is
    distributed as among LIMA's candidates (log-normal with a standard deviation of 1.18; 988 originals are each in the
    top 5 of 1 to 68 queries, half of them of at most 3) and independent of length (r = -0.05 for LIMA).
    """
    random = np.random.default_rng(seed)
    popularity = random.normal(0, 1.18, count)
    pairs = []
    for query in range(count):
        # The largest Gumbel keys are a weighted draw without replacement.
        keys = popularity + random.gumbel(size=count)
        keys[query] = np.inf
        pairs += [(query, int(original)) for original in np.argsort(-keys, kind="stable")[:candidates]]
    return np.array(pairs, dtype=np.int64)
