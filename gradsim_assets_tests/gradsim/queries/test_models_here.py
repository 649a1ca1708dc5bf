"""Queries that a model of this machine writes, without a job around it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from transformers import PreTrainedTokenizerBase

from gradsim.dataset.samples import SAMPLES_SCHEMA
from gradsim.models import RunningModel, load_tokenizer, train_reference_model
from gradsim.queries import QueryContext, make_queries
from gradsim.study import ModelConfiguration
from gradsim.study.settings import Generate, LocalParaphrase
from gradsim.text_generation.journal import read_journal
from gradsim.text_generation.local import chat_prompt

SYSTEM, USER = "Reword.", "How are knives cleaned?"


def samples(count: int, words: int = 4) -> pl.DataFrame:
    rows = [
        (f"s{n}", [{"role": "user", "content": f"ask {n} " * words}, {"role": "assistant", "content": f"say {n}"}])
        for n in range(count)
    ]
    return pl.DataFrame(rows, schema=SAMPLES_SCHEMA, orient="row")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "tiny"
    train_reference_model(
        samples(8), folder, layers=1, hidden_size=32, heads=2, vocabulary=300, positions=128, steps=10
    )
    return folder


MakeContext = Callable[..., QueryContext]


@pytest.fixture
def context(folder: Path, tmp_path: Path) -> MakeContext:
    def make(**changes: Any) -> QueryContext:
        running = RunningModel(ModelConfiguration(str(folder), device="cpu"))
        known = {"journals": tmp_path, "model": running, **changes}
        return QueryContext("study/setting/0000-0007", 42, [], **known)

    return make


def lines(context: QueryContext) -> int:
    return len((context.journals / f"{context.name}.jsonl").read_text().splitlines())


class TestGenerate:
    method = Generate(max_new_tokens=6)

    def test_the_prompt_is_kept_and_answered(self, context: MakeContext) -> None:
        made = make_queries(self.method, samples(4), context())
        assert made.frame["id"].to_list() == [f"s{n}" for n in range(4)]
        for dialogue, source in zip(made.frame["messages"].to_list(), samples(4)["messages"].to_list(), strict=True):
            assert dialogue[0] == source[0]
            assert dialogue[1]["role"] == "assistant"
        assert {tuple(reasons) for reasons in made.frame["finish_reasons"].to_list()} <= {
            (None, "stop"),
            (None, "length"),
        }
        assert made.measured["answers"] == 4
        assert made.excluded == {}

    def test_a_prompt_without_room_is_named_and_the_others_go_on(self, context: MakeContext) -> None:
        mixed = pl.concat([samples(2), samples(3, words=80)[2:]])
        made = make_queries(self.method, mixed, context())
        assert made.frame["id"].to_list() == ["s0", "s1"]
        assert made.excluded == {"s2": "its prompt leaves the model no room to answer"}

    def test_what_the_journal_holds_is_not_generated_again(self, context: MakeContext) -> None:
        calls: list[tuple[int, int]] = []
        make_queries(self.method, samples(3), context())
        again = make_queries(self.method, samples(5), context(progress=lambda done, total: calls.append((done, total))))
        assert lines(context()) == 5
        assert calls[-1] == (5, 5)
        assert calls[0] == (3, 5)
        assert again.frame.equals(make_queries(self.method, samples(5), context(force=True)).frame)
        assert lines(context()) == 10, "with force all are generated again"

    def test_other_lengths_are_other_answers(self, context: MakeContext) -> None:
        make_queries(self.method, samples(2), context())
        make_queries(Generate(max_new_tokens=7), samples(2), context())
        assert lines(context()) == 4

    def test_what_is_truncated_can_be_excluded(self, context: MakeContext) -> None:
        method = Generate(max_new_tokens=1, quality={"truncated": "exclude"})
        made = make_queries(method, samples(3), context())
        kept = made.frame["id"].to_list()
        assert made.excluded == {
            f"s{n}": "its answer: broken off before its end" for n in range(3) if f"s{n}" not in kept
        }
        assert made.excluded


class TestLocalParaphrase:
    def method(self, **changes: Any) -> LocalParaphrase:
        return LocalParaphrase(
            **{"model": "tiny", "precision": "float32", "max_new_tokens": 8, "system_prompt": SYSTEM, **changes}
        )

    def test_texts_depend_on_their_seed_and_on_nothing_else(self, context: MakeContext, tmp_path: Path) -> None:
        together = make_queries(self.method(), samples(4), context()).frame
        alone = pl.concat(
            make_queries(self.method(), samples(4)[n : n + 1], context(journals=tmp_path / str(n))).frame
            for n in range(4)
        )
        assert alone.equals(together)
        other = make_queries(self.method(seed=7), samples(4), context()).frame
        assert not other["messages"].equals(together["messages"])
        assert together["seeds"].to_list() == [[42, 42]] * 4

    def test_without_temperature_every_seed_says_the_same(self, context: MakeContext) -> None:
        first = make_queries(self.method(temperature=0), samples(2), context())
        again = make_queries(self.method(temperature=0, seed=7), samples(2), context())
        assert again.frame["messages"].equals(first.frame["messages"])
        assert lines(context()) == 4, "two prompts and two answers, each once"

    def test_a_text_that_leaves_no_room_is_none(self, context: MakeContext) -> None:
        made = make_queries(self.method(quality={"empty": "keep"}), samples(1, words=80), context())
        assert made.frame["messages"][0][0]["content"] == ""
        assert made.frame["finish_reasons"][0][0] == "prompt_too_long"

    def test_the_journal_is_of_the_model(self, context: MakeContext, folder: Path) -> None:
        make_queries(self.method(), samples(1), context())
        keys = read_journal(context().journals / f"{context().name}.jsonl").keys()
        make_queries(self.method(max_new_tokens=9), samples(1), context())
        assert len(read_journal(context().journals / f"{context().name}.jsonl").keys() - keys) == 2


class TestChatPrompt:
    @pytest.fixture
    def tokenizer(self, folder: Path) -> PreTrainedTokenizerBase:
        return load_tokenizer(str(folder))

    def said(self, tokenizer: PreTrainedTokenizerBase) -> str:
        return str(tokenizer.decode(chat_prompt(SYSTEM, USER, tokenizer)))

    def test_a_model_without_a_template_gets_the_tulu_one(self, tokenizer: PreTrainedTokenizerBase) -> None:
        assert self.said(tokenizer) == f"<|system|>\n{SYSTEM}\n<|user|>\n{USER}\n<|assistant|>\n"

    def test_a_models_own_template_is_used_without_thinking(self, tokenizer: PreTrainedTokenizerBase) -> None:
        tokenizer.chat_template = (
            "{% for m in messages %}[{{ m['role'] }}] {{ m['content'] }}{% endfor %}"
            "{% if add_generation_prompt %}[assistant]{% endif %}{% if enable_thinking %}<think>{% endif %}"
        )
        assert self.said(tokenizer) == f"[system] {SYSTEM}[user] {USER}[assistant]"

    def test_a_template_that_knows_no_system_role_gets_one_message(self, tokenizer: PreTrainedTokenizerBase) -> None:
        tokenizer.chat_template = (
            "{% for m in messages %}{% if m['role'] == 'system' %}{{ raise_exception('System role not supported') }}"
            "{% endif %}[{{ m['role'] }}] {{ m['content'] }}{% endfor %}"
        )
        assert self.said(tokenizer) == f"[user] {SYSTEM}\n\n{USER}"
