"""Queries of samples that are no conversations: texts as they are, and token ids."""

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from gradsim.dataset.samples import SAMPLES_SCHEMA
from gradsim.errors import SampleError
from gradsim.models import RunningModel, train_reference_model
from gradsim.queries import QueryContext, make_queries
from gradsim.study import ModelConfiguration
from gradsim.study.settings import Generate, LocalParaphrase, Quality, QueryFile, QueryMethod, WordDropout


def samples(*rows: list[tuple[str, str]]) -> pl.DataFrame:
    messages = [[{"role": role, "content": content} for role, content in row] for row in rows]
    return pl.DataFrame({"id": list("abc")[: len(rows)], "messages": messages}, schema=SAMPLES_SCHEMA)


TEXTS = samples([("text", "knives are cleaned with water")], [("text", "knives are kept in wood")])
TOKENS = samples([("masked tokens", "5 6"), ("tokens", "7 8")], [("tokens", "9 10")])
CONTEXT = QueryContext("study/setting", 42, ["a", "b"], Path("nowhere"))


def write(path: Path, *rows: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_words_are_dropped_from_a_text() -> None:
    queries = make_queries(WordDropout(every=2), TEXTS, CONTEXT).frame
    assert (
        queries["messages"].to_list()
        == samples([("text", "knives cleaned water")], [("text", "knives kept wood")])["messages"].to_list()
    )
    excluded = make_queries(WordDropout(every=6, quality=Quality(unchanged="exclude")), TEXTS, CONTEXT).excluded
    assert excluded == {"a": "its text: the same as before", "b": "its text: the same as before"}


def test_a_model_rewrites_a_text(tmp_path: Path) -> None:
    train_reference_model(
        TEXTS, tmp_path / "tiny", layers=1, hidden_size=16, heads=2, vocabulary=300, positions=256, steps=2
    )
    running = RunningModel(ModelConfiguration(str(tmp_path / "tiny"), device="cpu"))
    method = LocalParaphrase(model="tiny", precision="float32", max_new_tokens=4, quality={"empty": "keep"})
    context = QueryContext("study/setting", 42, [], tmp_path, model=running)
    queries = make_queries(method, TEXTS, context).frame
    assert [[message["role"] for message in each] for each in queries["messages"].to_list()] == [["text"]] * 2
    assert queries["seeds"].to_list() == [[42], [42]]


def test_token_ids_from_a_file(tmp_path: Path) -> None:
    path = write(
        tmp_path / "queries.jsonl",
        {"id": "b", "input_ids": [9, 11], "labels": [-100, 11]},
        {"id": "a", "input_ids": [5, 7], "labels": [5, 7]},
    )
    expected = samples([("tokens", "5 7")], [("masked tokens", "9"), ("tokens", "11")])
    assert make_queries(QueryFile(path=path), TOKENS, CONTEXT).frame.select("id", "messages").equals(expected)


def test_a_file_of_another_kind(tmp_path: Path) -> None:
    path = write(tmp_path / "queries.jsonl", {"id": "a", "text": "p"}, {"id": "b", "text": "q"})
    with pytest.raises(SampleError) as caught:
        make_queries(QueryFile(path=path), TOKENS, CONTEXT)
    assert str(caught.value) == (f"{path}: holds text, but the originals are tokens; give queries of the same kind")


@pytest.mark.parametrize(
    ("method", "originals", "message"),
    [
        (WordDropout(), TOKENS, "method word_dropout makes no queries of tokens; use the method file"),
        (LocalParaphrase(model="x"), TOKENS, "method local makes no queries of tokens; use the method file"),
        (
            Generate(),
            TEXTS,
            "method generate makes no queries of text; use the method file, paraphrase, local or word_dropout",
        ),
    ],
)
def test_methods_that_cannot_read_them(method: QueryMethod, originals: pl.DataFrame, message: str) -> None:
    with pytest.raises(SampleError) as caught:
        make_queries(method, originals, CONTEXT)
    assert str(caught.value) == message
