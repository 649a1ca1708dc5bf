import random
from pathlib import Path

import polars as pl
import pytest
import torch
from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers import models as tokenizer_models
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    OPTConfig,
    OPTForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

from gradsim.errors import ModelError
from gradsim.generate import GeneratedAnswer, greedy_answers
from gradsim.models import load_model, load_tokenizer, train_reference_model
from gradsim.samples import SAMPLES_SCHEMA
from gradsim.study import ModelConfiguration

POSITIONS = 96


def prompts_of(lengths: list[int], vocabulary: int) -> list[list[int]]:
    numbers = random.Random(0)
    return [[numbers.randrange(2, vocabulary) for _ in range(length)] for length in lengths]


@pytest.fixture(scope="module")
def olmo(tmp_path_factory: pytest.TempPathFactory) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A model that has learnt to end its answers."""
    samples = pl.DataFrame(
        [
            (f"s{n}", [{"role": "user", "content": "x" * n}, {"role": "assistant", "content": "abc " * (n % 3 + 1)}])
            for n in range(1, 9)
        ],
        schema=SAMPLES_SCHEMA,
        orient="row",
    )
    folder = tmp_path_factory.mktemp("models") / "tiny"
    train_reference_model(
        samples, folder, layers=2, hidden_size=32, vocabulary=280, positions=POSITIONS, steps=30, tokens_per_step=128
    )
    return load_model(ModelConfiguration(str(folder), device="cpu")), load_tokenizer(str(folder))


@pytest.fixture
def byte_tokenizer() -> PreTrainedTokenizerBase:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(tokenizer_models.BPE({token: n for n, token in enumerate(["<end>", *alphabet])}, []))
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<end>")


def plain_loop(model: PreTrainedModel, prompt: list[int], end: int, max_new_tokens: int) -> list[int]:
    """The likeliest token, one at a time, without padding or cache, up to the end token."""
    ids = list(prompt)
    for _ in range(max_new_tokens):
        with torch.no_grad():
            best = int(model(torch.tensor([ids]), use_cache=False).logits[0, -1].argmax())
        ids.append(best)
        if best == end:
            break
    return ids[len(prompt) :]


def check_against_loop(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompts: list[list[int]], context: int
) -> list[GeneratedAnswer]:
    answers = greedy_answers(model, tokenizer, prompts, max_new_tokens=12)
    assert isinstance(tokenizer.eos_token_id, int)
    for prompt, answer in zip(prompts, answers, strict=True):
        ids = plain_loop(model, prompt, tokenizer.eos_token_id, min(12, context - len(prompt)))
        finished = ids[-1] == tokenizer.eos_token_id
        kept = ids[:-1] if finished else ids
        assert answer == GeneratedAnswer(str(tokenizer.decode(kept)), len(kept), finished)
    return answers


def test_batched_is_one_at_a_time(olmo: tuple[PreTrainedModel, PreTrainedTokenizerBase]) -> None:
    model, tokenizer = olmo
    asked = [tokenizer(f"<|user|>\n{'x' * n}\n<|assistant|>\n")["input_ids"] for n in range(1, 9)]
    prompts = asked + prompts_of([5, 1, 17, 9, 9, 30, POSITIONS - 12, POSITIONS - 7, POSITIONS - 7, POSITIONS - 1], 280)
    answers = check_against_loop(model, tokenizer, prompts, POSITIONS)
    assert {answer.finished for answer in answers} == {True, False}


@pytest.mark.parametrize(
    "model",
    [
        GPT2LMHeadModel(GPT2Config(vocab_size=257, n_positions=40, n_embd=32, n_layer=2, n_head=2)),
        OPTForCausalLM(
            OPTConfig(
                vocab_size=257,
                max_position_embeddings=40,
                hidden_size=32,
                word_embed_proj_dim=32,
                ffn_dim=64,
                num_hidden_layers=2,
                num_attention_heads=2,
            )
        ),
    ],
    ids=["gpt2", "opt"],
)
def test_table_of_positions_is_neither_shifted_nor_left(
    model: PreTrainedModel, byte_tokenizer: PreTrainedTokenizerBase
) -> None:
    torch.manual_seed(0)
    for weight in model.parameters():
        torch.nn.init.normal_(weight, std=0.3)
    check_against_loop(model.eval(), byte_tokenizer, prompts_of([3, 8, 1, 28, 33, 39], 257), 40)


def test_batches_change_nothing(olmo: tuple[PreTrainedModel, PreTrainedTokenizerBase]) -> None:
    model, tokenizer = olmo
    prompts = prompts_of([4, 20, 7, 7, 12], 280)
    calls: list[tuple[int, int]] = []
    together = greedy_answers(model, tokenizer, prompts, max_new_tokens=8)
    apart = greedy_answers(
        model,
        tokenizer,
        prompts,
        max_new_tokens=8,
        tokens_per_batch=1,
        progress=lambda done, total: calls.append((done, total)),
    )
    assert together == apart
    assert calls == [(done, 5) for done in range(1, 6)]


def test_prompt_without_room_is_reported_and_the_rest_answered(
    olmo: tuple[PreTrainedModel, PreTrainedTokenizerBase],
) -> None:
    model, tokenizer = olmo
    short, full, longer = prompts_of([4, POSITIONS, POSITIONS + 5], 280)
    calls: list[tuple[int, int]] = []
    answers = greedy_answers(
        model,
        tokenizer,
        [longer, short, full],
        max_new_tokens=4,
        progress=lambda done, total: calls.append((done, total)),
    )
    too_long = GeneratedAnswer("", 0, finished=False, prompt_too_long=True)
    assert answers == [too_long, *greedy_answers(model, tokenizer, [short], max_new_tokens=4), too_long]
    assert calls == [(3, 3)]


def test_no_prompts(olmo: tuple[PreTrainedModel, PreTrainedTokenizerBase]) -> None:
    assert greedy_answers(*olmo, [], max_new_tokens=4) == []


def test_the_models_own_settings_do_not_leak_in(olmo: tuple[PreTrainedModel, PreTrainedTokenizerBase]) -> None:
    model, tokenizer = olmo
    prompts = prompts_of([4, 9], 280)
    plain = greedy_answers(model, tokenizer, prompts, max_new_tokens=8)
    first = tokenizer(plain[0].text)["input_ids"][0]
    assert model.generation_config is not None
    settings = model.generation_config
    settings.update(do_sample=True, temperature=9.0, repetition_penalty=9.0, suppress_tokens=[first], min_length=90)
    before = settings.to_dict()
    try:
        assert greedy_answers(model, tokenizer, prompts, max_new_tokens=8) == plain
        assert model.generation_config is settings
        assert settings.to_dict() == before
    finally:
        settings.update(do_sample=False, temperature=None, repetition_penalty=None, suppress_tokens=None, min_length=0)


def test_empty_answer_is_returned_as_it_is(byte_tokenizer: PreTrainedTokenizerBase) -> None:
    model = GPT2LMHeadModel(GPT2Config(vocab_size=257, n_positions=40, n_embd=32, n_layer=1, n_head=2)).eval()
    torch.nn.init.zeros_(model.transformer.wte.weight)  # every token is as likely, the first of them ends the answer
    assert greedy_answers(model, byte_tokenizer, [[5, 6]], max_new_tokens=4) == [GeneratedAnswer("", 0, finished=True)]


def test_tokenizer_without_end_token(olmo: tuple[PreTrainedModel, PreTrainedTokenizerBase], tmp_path: Path) -> None:
    model, _ = olmo
    endless = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(tokenizer_models.WordLevel({"a": 0}, unk_token="a")), name_or_path="endless"
    )
    with pytest.raises(ModelError) as caught:
        greedy_answers(model, endless, [[0]], max_new_tokens=4)
    assert str(caught.value) == "tokenizer endless has no end token; set eos_token in its configuration"
