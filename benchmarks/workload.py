"""What the engine's benchmarks run on: random OLMo models, and random samples as long as LIMA's."""

from dataclasses import dataclass
from typing import Final, TypedDict

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import OlmoConfig, OlmoForCausalLM

Integers = NDArray[np.int64]
Model = OlmoForCausalLM

# Percentiles 0 to 100 of the 988 LIMA samples' tokens (whole dialogues, 803,820 in all) under a BPE of 4,096 entries,
# and deciles of their prompts' tokens, which the loss leaves out. The two lengths are uncorrelated (r = 0.03).
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
    """Of a model: what `olmo` is given, its defaults left out."""

    hidden: int
    layers: int
    mlp: int
    heads: int
    vocabulary: int


OLMO_1B: Final = Shape(hidden=2048, layers=16, mlp=8192, heads=16, vocabulary=50304)
"""AMD-OLMo-1B-SFT's own: 1,176,764,416 parameters in 113 tensors."""

TINY: Final = Shape(hidden=64, layers=2, vocabulary=512)
"""To try a command out."""


@dataclass(frozen=True)
class Sample:
    """What `compare` reads."""

    id: str
    input_ids: list[int]
    labels: list[int]


@dataclass(frozen=True)
class Workload:
    """Queries, originals, and the pairs that are compared."""

    queries: list[Sample]
    originals: list[Sample]
    pairs: Integers

    @property
    def tokens(self) -> int:
        """Of all unique samples."""
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
    """A randomly initialised OLMo with tied embeddings; by default 9.4 million parameters."""
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
    """Tokens and prompt tokens of so many samples: evenly spaced quantiles, shuffled; a prompt leaves a label."""
    random = np.random.default_rng(seed)
    places = (np.arange(count) + 0.5) / count
    tokens, prompts = (
        random.permutation(np.interp(places, np.linspace(0, 1, len(quantiles)), quantiles).round().astype(np.int64))
        for quantiles in (LIMA_TOKENS, LIMA_PROMPT_TOKENS)
    )
    return tokens, np.minimum(prompts, tokens // 2)


def between(shortest: int, longest: int, count: int, seed: int) -> tuple[Integers, Integers]:
    """Tokens and prompt tokens of so many samples with lengths from a range; a quarter of each is its prompt."""
    tokens = np.random.default_rng(seed).permutation(np.linspace(shortest, longest, count).round().astype(np.int64))
    return tokens, tokens // 4


def samples(name: str, lengths: tuple[Integers, Integers], vocabulary: int, seed: int) -> list[Sample]:
    """Random tokens; the prompt is masked."""
    random = np.random.default_rng(seed)
    made = []
    for number, (length, prompt) in enumerate(zip(*lengths, strict=True)):
        tokens = random.integers(2, vocabulary, length).tolist()
        made.append(Sample(f"{name}_{number}", tokens, [MASKED] * int(prompt) + tokens[int(prompt) :]))
    return made


def lima_top_five(queries: int, vocabulary: int) -> Workload:
    """Queries and as many originals as long as LIMA's, top five."""
    return Workload(
        samples("query", lima_like(queries, seed=1), vocabulary, seed=1),
        samples("original", lima_like(queries, seed=2), vocabulary, seed=2),
        top_pairs(queries, min(5, queries), seed=3),
    )


def top_pairs(count: int, candidates: int, seed: int) -> Integers:
    """Each query with its own original and others, as BM25 finds them: (count · candidates, 2) positions.

    Some originals are found for many queries, most for few: the others are drawn by a popularity that is spread as
    among LIMA's candidates (its logarithm has a standard deviation of 1.18; there, 988 originals are in 1 to 68
    queries' top 5, half of them in at most 3) and has nothing to do with their lengths (there, r = -0.05).
    """
    random = np.random.default_rng(seed)
    popularity = random.normal(0, 1.18, count)
    pairs = []
    for query in range(count):
        # The largest of these are a draw without replacement.
        keys = popularity + random.gumbel(size=count)
        keys[query] = np.inf
        pairs += [(query, int(original)) for original in np.argsort(-keys, kind="stable")[:candidates]]
    return np.array(pairs, dtype=np.int64)
