"""A model of each family with prompts and what it answers to each of them alone."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import pytest
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from gradsim_assets_tests.gradsim.text_generation.local.families import (
    FAMILIES,
    POSITIONS,
    Alone,
    common_end,
    make_model,
    make_tokenizer,
    prompts_of,
)

LONGEST = 24
# From prompts that leave room for all of LONGEST to such that leave room for one token.
LENGTHS = [3, 1, 17, 9, 9, 30, 39, POSITIONS - 24, POSITIONS - 23, POSITIONS - 5, POSITIONS - 1, 2, 2, 20, 11, 5, 26]


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Beside other work two threads wait for each other a hundred times as long as such small models take."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@dataclass(frozen=True)
class Known:
    """A model, prompts, and its answers to them one at a time; some end by themselves."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    prompts: list[list[int]]
    alone: list[Alone]
    end: int


@cache
def known_of(family: str) -> Known:
    model = make_model(family)
    prompts = prompts_of(LENGTHS)
    alone = [Alone.of(model, prompt, LONGEST) for prompt in prompts]
    end = common_end(alone)
    return Known(model, make_tokenizer(end), prompts, alone, end)


@pytest.fixture(params=list(FAMILIES))
def known(request: pytest.FixtureRequest) -> Known:
    """Every family."""
    return known_of(request.param)


@pytest.fixture
def rotary() -> Known:
    """The family of the tiny reference model."""
    return known_of("rotary")


@pytest.fixture
def short_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    """Slices shorter than answers, so that rows leave, are set aside and come back."""
    monkeypatch.setattr("gradsim.text_generation.local.schedule.SLICE", 5)
    monkeypatch.setattr("gradsim.text_generation.local.decoding.SLICE", 5)
    monkeypatch.setattr("gradsim.text_generation.local.companies.SLICE", 5)
