"""Draws follow the model's distribution, and depend on nothing but their seed, prompt and model."""

import math
from collections import Counter

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.stats import chi2_contingency, chisquare

from gradsim.text_generation.local import Sampling, generate_answers
from gradsim.text_generation.local.sampling import Noise, as_int64, gumbel, random_bits
from gradsim_assets_tests.gradsim.text_generation.local.conftest import LONGEST, Known
from gradsim_assets_tests.gradsim.text_generation.local.families import ids_of, make_tokenizer, prompts_of

pytestmark = pytest.mark.slow

PROBABILITIES = torch.tensor([0.5, 0.25, 0.15, 0.07, 0.03], dtype=torch.float64)
DRAWS = 20_000
# Seeds are fixed: a test passes always or never.
UNLIKELY = 1e-3


def drawn_tokens(seeds: torch.Tensor, drawn: int, temperature: float = 1.0) -> NDArray[np.int64]:
    """One draw from PROBABILITIES for each seed."""
    noise = Noise(temperature, seeds, torch.full_like(seeds, drawn))
    scores = PROBABILITIES.log().float().expand(len(seeds), -1)
    return noise(torch.empty(0), scores).argmax(-1).numpy()  # type: ignore[arg-type]


def frequencies(tokens: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.bincount(tokens, minlength=len(PROBABILITIES))


def test_bits_are_those_of_splitmix64() -> None:
    limit = 1 << 64

    def mixed(state: int) -> int:
        state = (state ^ (state >> 30)) * 0xBF58476D1CE4E5B9 % limit
        state = (state ^ (state >> 27)) * 0x94D049BB133111EB % limit
        return state ^ (state >> 31)

    # The published generator's first outputs from state 1234567.
    published = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431]
    step = 0x9E3779B97F4A7C15
    assert [mixed((1234567 + place * step) % limit) for place in range(1, 5)] == published

    seeds, counts = [0, 1, -1, 2**63 - 1, 2**70 + 5], [0, 1, 2, 300, 7]
    bits = random_bits(torch.tensor([as_int64(seed) for seed in seeds]), torch.tensor(counts), 6)
    for seed, count, row in zip(seeds, counts, bits.tolist(), strict=True):
        state = mixed((mixed((seed + step) % limit) + count) % limit)
        assert [bit % limit for bit in row] == [mixed((state + place * step) % limit) for place in range(1, 7)]


def test_noise_is_gumbel() -> None:
    noise = gumbel(torch.arange(50), torch.zeros(50, dtype=torch.long), 4_000)
    assert noise.dtype == torch.float64
    assert noise.isfinite().all()
    assert abs(noise.mean() - 0.5772157) < 4 * math.pi / math.sqrt(6 * noise.numel())
    assert abs(noise.var() - math.pi**2 / 6) < 0.03
    # Uniform in 64 classes of equal probability.
    classes = (torch.exp(-torch.exp(-noise)) * 64).long().flatten()
    assert chisquare(np.bincount(classes.numpy(), minlength=64)).pvalue > UNLIKELY


@pytest.mark.parametrize("drawn", [0, 1, 255])
@pytest.mark.parametrize("first", [0, 2**62], ids=["small seeds", "large seeds"])
def test_draws_follow_the_distribution(drawn: int, first: int) -> None:
    tokens = drawn_tokens(first + torch.arange(DRAWS), drawn)
    assert chisquare(frequencies(tokens), PROBABILITIES.numpy() * DRAWS).pvalue > UNLIKELY


def test_temperature_divides_logits() -> None:
    expected = PROBABILITIES.sqrt() / PROBABILITIES.sqrt().sum()
    tokens = drawn_tokens(torch.arange(DRAWS), 0, temperature=2.0)
    assert chisquare(frequencies(tokens), expected.numpy() * DRAWS).pvalue > UNLIKELY


def test_draws_of_a_row_and_of_neighbouring_seeds_are_independent() -> None:
    seeds = torch.arange(DRAWS)
    first, second = drawn_tokens(seeds, 0), drawn_tokens(seeds, 1)
    for one, other in ((first, second), (first[:-1], first[1:]), (first[:-1], second[1:])):
        together = np.zeros((len(PROBABILITIES), len(PROBABILITIES)))
        np.add.at(together, (one, other), 1)
        assert chi2_contingency(together).pvalue > UNLIKELY


def test_one_long_row_follows_the_distribution() -> None:
    noise = Noise(1.0, torch.tensor([42]), torch.tensor([0]))
    scores = PROBABILITIES.log().float()[None]
    tokens = torch.stack([noise(torch.empty(0), scores).argmax() for _ in range(5_000)])  # type: ignore[arg-type]
    assert chisquare(frequencies(tokens.numpy()), PROBABILITIES.numpy() * 5_000).pvalue > UNLIKELY


def test_first_tokens_are_drawn_from_the_models_distribution(rotary: Known) -> None:
    prompt, count, temperature = rotary.prompts[0], 4_000, 3.0
    answers = generate_answers(
        rotary.model,
        make_tokenizer(0),
        [prompt] * count,
        max_new_tokens=1,
        tokens_per_batch=100_000,
        sampling=Sampling(temperature, range(count)),
    )
    with torch.no_grad():
        logits = rotary.model(torch.tensor([prompt])).logits[0, -1].double()
    expected = (logits / temperature).softmax(-1).numpy() * count
    seen = Counter(next(iter(ids_of(answer)), 0) for answer in answers)
    counted = np.array([seen[token] for token in range(len(expected))])
    assert expected.min() > 5
    assert chisquare(counted, expected).pvalue > UNLIKELY


@pytest.mark.filterwarnings("ignore:model rwkv")
@pytest.mark.usefixtures("short_slices")
def test_answers_do_not_depend_on_batch_order_or_others(known: Known) -> None:
    seeds = [1000 + place for place in range(len(known.prompts))]
    together, *others = (
        generate_answers(
            known.model,
            known.tokenizer,
            known.prompts,
            max_new_tokens=LONGEST,
            tokens_per_batch=budget,
            sampling=Sampling(1.5, seeds),
        )
        for budget in (16_384, 300, 1)
    )
    assert others == [together] * 2
    order = list(reversed(range(0, len(seeds), 2)))
    some = generate_answers(
        known.model,
        known.tokenizer,
        [known.prompts[place] for place in order],
        max_new_tokens=LONGEST,
        sampling=Sampling(1.5, [seeds[place] for place in order]),
    )
    assert some == [together[place] for place in order]
    assert together != generate_answers(known.model, known.tokenizer, known.prompts, max_new_tokens=LONGEST)


def test_seeds_draw_differently(rotary: Known) -> None:
    prompts = prompts_of([8]) * 20
    answers = generate_answers(
        rotary.model, rotary.tokenizer, prompts, max_new_tokens=12, sampling=Sampling(2.0, range(20))
    )
    assert len({answer.text for answer in answers}) > 15


def test_low_temperature_takes_the_likeliest(rotary: Known) -> None:
    greedy = generate_answers(rotary.model, rotary.tokenizer, rotary.prompts, max_new_tokens=LONGEST)
    cold = Sampling(1e-4, range(len(greedy)))
    assert greedy == generate_answers(
        rotary.model, rotary.tokenizer, rotary.prompts, max_new_tokens=LONGEST, sampling=cold
    )


def test_what_cannot_be_drawn(rotary: Known) -> None:
    with pytest.raises(ValueError, match="temperature is 0; it must be greater than 0"):
        Sampling(0, [1])
    with pytest.raises(ValueError, match="zip"):
        generate_answers(
            rotary.model, rotary.tokenizer, rotary.prompts, max_new_tokens=4, sampling=Sampling(1.0, [1, 2])
        )
