"""Conversations of several turns: queries rewrite the last prompt and the last answer, and nothing before them."""

from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch

from gradsim.candidates import bm25_candidates
from gradsim.chat import prompt_ids
from gradsim.dataset.samples import SAMPLES_SCHEMA, validate
from gradsim.models import RunningModel, train_reference_model
from gradsim.queries import QueryContext, make_queries
from gradsim.queries.quality import fault_table
from gradsim.study import ModelConfiguration
from gradsim.study.settings import Generate, LocalParaphrase, Quality, WordDropout

SYSTEM = {"role": "system", "content": "Speak of knives."}
EARLIER = [{"role": "user", "content": "What is a knife?"}, {"role": "assistant", "content": "It is a blade."}]


def last(prompt: str, answer: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": prompt}, {"role": "assistant", "content": answer}]


SAMPLES = pl.DataFrame(
    {
        "id": ["a", "b"],
        "messages": [
            [SYSTEM, *EARLIER, *last("how are knives cleaned", "with warm water")],
            [*EARLIER, *last("where are knives kept", "in a wooden block")],
        ],
    },
    schema=SAMPLES_SCHEMA,
)
CONTEXT = QueryContext("study/setting", 42, ["a", "b"], Path("nowhere"))


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> RunningModel:
    folder = tmp_path_factory.mktemp("models") / "tiny"
    train_reference_model(SAMPLES, folder, layers=1, hidden_size=16, heads=2, vocabulary=300, positions=256, steps=2)
    return RunningModel(ModelConfiguration(str(folder), device="cpu"))


def test_they_are_valid_samples() -> None:
    assert validate(SAMPLES, 2, "mine").equals(SAMPLES)


def test_words_are_dropped_from_the_last_turn() -> None:
    queries = make_queries(WordDropout(every=2), SAMPLES, CONTEXT).frame
    assert queries["messages"].to_list() == [
        [SYSTEM, *EARLIER, *last("how knives", "with water")],
        [*EARLIER, *last("where knives", "in wooden")],
    ]
    assert queries["finish_reasons"].list.len().to_list() == [5, 4]


def test_the_last_prompt_is_answered_after_all_that_was_said(running: RunningModel, tmp_path: Path) -> None:
    context = QueryContext("study/setting", 42, [], tmp_path, model=running)
    queries = make_queries(Generate(max_new_tokens=3), SAMPLES, context).frame
    for query, sample in zip(queries["messages"].to_list(), SAMPLES["messages"].to_list(), strict=True):
        assert query[:-1] == sample[:-1]
        prompt = prompt_ids(sample[:-1], running.tokenizer, "tulu")
        generate: Any = running.model.generate
        output = generate(torch.tensor([prompt]), max_new_tokens=3, do_sample=False)
        assert query[-1]["content"] == running.tokenizer.decode(output[0, len(prompt) :], skip_special_tokens=True)
    assert [reasons[:-1] for reasons in queries["finish_reasons"].to_list()] == [[None] * 4, [None] * 3]


def test_a_model_rewrites_the_last_turn(running: RunningModel, tmp_path: Path) -> None:
    method = LocalParaphrase(model="tiny", precision="float32", max_new_tokens=4, quality={"empty": "keep"})
    queries = make_queries(method, SAMPLES, QueryContext("study/setting", 42, [], tmp_path, model=running)).frame
    for query, sample in zip(queries["messages"].to_list(), SAMPLES["messages"].to_list(), strict=True):
        assert query[:-2] == sample[:-2]
        assert [message["role"] for message in query] == [message["role"] for message in sample]
    assert [seeds[-2:] for seeds in queries["seeds"].to_list()] == [[42, 42]] * 2
    assert {seed for seeds in queries["seeds"].to_list() for seed in seeds[:-2]} == {None}


def test_faults_are_those_of_the_last_turn() -> None:
    """What stands before it is unchanged, which is no fault."""
    queries = make_queries(WordDropout(every=4), SAMPLES, CONTEXT).frame
    faults = fault_table(SAMPLES, queries).select("id", "role", "fault").rows()
    assert faults == [("a", "assistant", "unchanged")]
    assert queries["faults"].to_list()[0] == [[], [], [], [], ["unchanged"]]
    excluded = make_queries(WordDropout(every=4, quality=Quality(unchanged="exclude")), SAMPLES, CONTEXT).excluded
    assert excluded == {"a": "its answer: the same as before"}


def test_bm25_compares_the_last_prompts() -> None:
    alone = SAMPLES.with_columns(pl.col("messages").list.tail(2))
    assert bm25_candidates(SAMPLES, SAMPLES, top_k=2).equals(bm25_candidates(alone, alone, top_k=2))
