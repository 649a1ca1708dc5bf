"""Batched answers are those of prompts alone; what becomes of prompts and answers that end otherwise."""

import pytest
import torch
from tokenizers import Tokenizer
from tokenizers import models as tokenizer_models
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from gradsim.errors import ModelError
from gradsim.text_generation.local import GeneratedAnswer, generate_answers
from gradsim_assets_tests.gradsim.text_generation.local.conftest import LONGEST, Known
from gradsim_assets_tests.gradsim.text_generation.local.families import (
    POSITIONS,
    Alone,
    as_good_as_tied,
    common_end,
    ids_of,
    make_model,
    make_tokenizer,
    prompts_of,
)

pytestmark = pytest.mark.slow

TOO_LONG = GeneratedAnswer("", 0, finished=False, prompt_too_long=True)


@pytest.mark.filterwarnings("ignore:model rwkv")
@pytest.mark.usefixtures("short_slices")
@pytest.mark.parametrize("budget", [16_384, 300, 90])
def test_batched_is_one_at_a_time(known: Known, budget: int) -> None:
    answers = generate_answers(
        known.model, known.tokenizer, known.prompts, max_new_tokens=LONGEST, tokens_per_batch=budget
    )
    assert as_good_as_tied(answers, known.alone, known.end) == 0
    assert {answer.finished for answer in answers} == {True, False}
    assert not any(answer.prompt_too_long for answer in answers)


def test_many_random_prompts(rotary: Known) -> None:
    prompts = prompts_of([length for length in range(1, POSITIONS) for _ in range(3)], seed=1)
    alone = [Alone.of(rotary.model, prompt, 8) for prompt in prompts]
    end = common_end(alone)
    answers = generate_answers(rotary.model, make_tokenizer(end), prompts, max_new_tokens=8, tokens_per_batch=2_000)
    # 1,500 tokens, and no two best of any within 1e-5 that went the other way.
    assert as_good_as_tied(answers, alone, end) == 0


@pytest.mark.usefixtures("short_slices")
def test_float64_is_one_at_a_time() -> None:
    model, prompts = make_model("rotary", torch.float64), prompts_of([4, 30, 7, 12])
    alone = [Alone.of(model, prompt, 12) for prompt in prompts]
    end = common_end(alone)
    assert as_good_as_tied(generate_answers(model, make_tokenizer(end), prompts, max_new_tokens=12), alone, end) == 0


@pytest.mark.usefixtures("short_slices")
def test_bfloat16_answers() -> None:
    model, prompts = make_model("rotary", torch.bfloat16), prompts_of([4, 30, 7, 12])
    answers = generate_answers(model, make_tokenizer(0), prompts, max_new_tokens=12)
    assert [answer.new_tokens == 12 or answer.finished for answer in answers] == [True] * 4
    # What a token's rounding does later on is another matter.
    assert [ids_of(answer)[:1] for answer in answers] == [Alone.of(model, prompt, 1).ids for prompt in prompts]


def test_default_goes_up_to_the_context(rotary: Known) -> None:
    prompts = prompts_of([POSITIONS - 3, 5, POSITIONS - 1])
    answers = generate_answers(rotary.model, make_tokenizer(0), prompts, max_new_tokens=None)
    alone = [Alone.of(rotary.model, prompt, POSITIONS) for prompt in prompts]
    assert as_good_as_tied(answers, alone, end=0) == 0
    assert [len(prompt) + answer.new_tokens for prompt, answer in zip(prompts, answers, strict=True)] == [POSITIONS] * 3


def test_default_without_a_context_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gradsim.text_generation.local.answers.LONGEST_ANSWER", 70)
    model = make_model("biases for distances, no context")
    for answer in generate_answers(model, make_tokenizer(0), prompts_of([4, 9]), max_new_tokens=None):
        assert answer.new_tokens == 70 or answer.finished


def test_model_that_never_ends() -> None:
    model = GPT2LMHeadModel(GPT2Config(vocab_size=64, n_positions=200, n_embd=32, n_layer=1, n_head=2)).eval()
    torch.nn.init.zeros_(model.transformer.wte.weight)  # every token is as likely: the first, which is not the last
    answers = generate_answers(
        model, make_tokenizer(63), prompts_of([3, 150, 40, 3]), max_new_tokens=None, tokens_per_batch=400
    )
    assert [(set(ids_of(answer)), answer.new_tokens) for answer in answers] == [
        ({0}, 197),
        ({0}, 50),
        ({0}, 160),
        ({0}, 197),
    ]
    assert not any(answer.finished for answer in answers)


def test_empty_answer_is_returned_as_it_is() -> None:
    model = GPT2LMHeadModel(GPT2Config(vocab_size=64, n_positions=40, n_embd=32, n_layer=1, n_head=2)).eval()
    torch.nn.init.zeros_(model.transformer.wte.weight)  # every token is as likely: the first of them, which is the end
    answers = generate_answers(model, make_tokenizer(0), [[5, 6], [7]], max_new_tokens=4)
    assert answers == [GeneratedAnswer("", 0, finished=True)] * 2


def test_prompts_without_room_are_reported_first_and_the_rest_answered(rotary: Known) -> None:
    short, full, longer = prompts_of([4, POSITIONS, POSITIONS + 5])
    handed: list[tuple[int, GeneratedAnswer]] = []
    calls: list[tuple[int, int]] = []
    answers = generate_answers(
        rotary.model,
        rotary.tokenizer,
        [longer, short, full],
        max_new_tokens=4,
        progress=lambda done, total: calls.append((done, total)),
        on_answer=lambda position, answer: handed.append((position, answer)),
    )
    [alone] = generate_answers(rotary.model, rotary.tokenizer, [short], max_new_tokens=4)
    assert answers == [TOO_LONG, alone, TOO_LONG]
    assert handed == [(0, TOO_LONG), (2, TOO_LONG), (1, alone)]
    assert calls == [(1, 3), (2, 3), (3, 3)]


def test_every_prompt_too_long(rotary: Known) -> None:
    prompts = prompts_of([POSITIONS, POSITIONS + 1])
    assert generate_answers(rotary.model, rotary.tokenizer, prompts, max_new_tokens=None) == [TOO_LONG] * 2


def test_no_prompts(rotary: Known) -> None:
    assert generate_answers(rotary.model, rotary.tokenizer, [], max_new_tokens=4) == []


@pytest.mark.usefixtures("short_slices")
def test_answers_are_handed_over_as_soon_as_they_are_complete(rotary: Known) -> None:
    steps = 0
    seen: dict[int, tuple[int, GeneratedAnswer]] = {}

    def count(*_: object) -> None:
        nonlocal steps
        steps += 1

    counting = rotary.model.register_forward_hook(count)
    try:
        answers = generate_answers(
            rotary.model,
            rotary.tokenizer,
            rotary.prompts,
            max_new_tokens=LONGEST,
            on_answer=lambda position, answer: seen.update({position: (steps, answer)}),
        )
    finally:
        counting.remove()
    assert [answer for _, answer in map(seen.__getitem__, range(len(answers)))] == answers
    # One batch holds them all, read in a few groups: a row leaves with the slice in which it ends.
    read_in = next(step for step, answer in seen.values() if answer.new_tokens <= 1) - 1
    for step, answer in seen.values():
        assert step <= read_in + answer.new_tokens + 5
    assert steps >= read_in + LONGEST - 1


@pytest.mark.usefixtures("short_slices")
def test_what_is_interrupted_has_been_handed_over(rotary: Known) -> None:
    handed: list[int] = []

    def interrupted(position: int, _: GeneratedAnswer) -> None:
        handed.append(position)
        if len(handed) == 3:
            raise KeyboardInterrupt

    own = rotary.model.generation_config
    with pytest.raises(KeyboardInterrupt):
        generate_answers(rotary.model, rotary.tokenizer, rotary.prompts, max_new_tokens=LONGEST, on_answer=interrupted)
    assert len(handed) == 3
    assert rotary.model.generation_config is own


def test_the_models_own_settings_do_not_leak_in(rotary: Known) -> None:
    model, tokenizer, prompts = rotary.model, rotary.tokenizer, rotary.prompts[:4]
    plain = generate_answers(model, tokenizer, prompts, max_new_tokens=8)
    settings = model.generation_config
    assert settings is not None
    first = ids_of(plain[0])[0]
    settings.update(do_sample=True, temperature=9.0, repetition_penalty=9.0, suppress_tokens=[first], min_length=90)
    before = settings.to_dict()
    try:
        assert generate_answers(model, tokenizer, prompts, max_new_tokens=8) == plain
        assert model.generation_config is settings
        assert settings.to_dict() == before
    finally:
        settings.update(do_sample=False, temperature=None, repetition_penalty=None, suppress_tokens=None, min_length=0)


def test_tokenizer_without_end_token(rotary: Known) -> None:
    endless = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(tokenizer_models.WordLevel({"a": 0}, unk_token="a")), name_or_path="endless"
    )
    with pytest.raises(ModelError) as caught:
        generate_answers(rotary.model, endless, [[0]], max_new_tokens=4)
    assert str(caught.value) == "tokenizer endless has no end token; set eos_token in its configuration"


@pytest.mark.parametrize(("end", "prompt", "number"), [("a", [0, 4], 4), ("e", [0, 1], 4)])
def test_a_token_without_an_embedding(end: str, prompt: list[int], number: int) -> None:
    """As where tokens were added to the tokenizer, but the model was not resized."""
    words = {word: place for place, word in enumerate("abcde")}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(tokenizer_models.WordLevel(words, unk_token="b")), eos_token=end
    )
    model = GPT2LMHeadModel(GPT2Config(n_embd=8, n_layer=1, n_head=1, vocab_size=4)).eval()
    with pytest.raises(ModelError) as caught:
        generate_answers(model, tokenizer, [[0], prompt], max_new_tokens=4)
    first = 2 if end == "a" else 1
    assert str(caught.value).startswith(
        f"prompt {first} has token {number} ('e'), but the model has 4 embeddings and its tokenizer 5 tokens; use the "
    )
