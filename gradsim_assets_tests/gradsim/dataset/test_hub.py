"""Datasets as `datasets` loads them, here from local folders."""

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from gradsim.dataset import load_hub
from gradsim.dataset.samples import SAMPLES_SCHEMA
from gradsim.errors import SampleError
from gradsim.study import HubDataset

CHECK = "check its name, subset, split and revision in the study file, the network, and HF_TOKEN if it is gated"


def turn(prompt: str, answer: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": prompt}, {"role": "assistant", "content": answer}]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    folder = tmp_path / "mixture"
    folder.mkdir()
    return folder


@pytest.fixture
def mixture(folder: Path) -> Path:
    pl.DataFrame(
        {
            "dataset": ["other", "lima", "lima"],
            "messages": [turn("p", "q"), turn("r", "s"), [*turn("t", "u"), *turn("v", "w")]],
            "tags": [["a"], [], None],
            "good": [True, False, None],
            "turns": [1, 1, 2],
            "score": [0.5, 1.0, None],
        }
    ).write_parquet(folder / "train.parquet")
    return folder


def ids(folder: Path, **keys: Any) -> list[str]:
    frame = load_hub(HubDataset(hub=str(folder), **keys)).frame
    assert frame.schema == SAMPLES_SCHEMA
    return frame["id"].to_list()


def refusal(folder: Path, **keys: Any) -> str:
    with pytest.raises(SampleError) as caught:
        load_hub(HubDataset(hub=str(folder), **keys))
    assert "\n" not in str(caught.value)
    return str(caught.value).removeprefix(f"dataset {folder}: ")


def test_rows_are_kept_by_value_and_named_by_number(mixture: Path) -> None:
    loaded = load_hub(HubDataset(hub=str(mixture), where={"dataset": "lima"}))
    assert loaded.frame["id"].to_list() == ["mixture_1", "mixture_2"]
    alone = load_hub(HubDataset(hub=str(mixture), where={"dataset": "lima"}, single_turn=True))
    assert alone.frame.rows() == [("mixture_1", turn("r", "s"))]
    assert (loaded.format, loaded.ignored) == ("messages", ("dataset", "tags", "good", "turns", "score"))


@pytest.mark.parametrize(
    ("where", "rows"),
    [
        ({"good": True}, [0]),
        ({"good": "false"}, [1]),
        ({"turns": 2}, [2]),
        ({"turns": "1", "dataset": "lima"}, [1]),
        ({"score": 1}, [1]),
        ({"score": 0.5}, [0]),
    ],
)
def test_values_of_every_kind(mixture: Path, where: dict[str, Any], rows: list[int]) -> None:
    assert ids(mixture, where=where) == [f"mixture_{row}" for row in rows]


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ({"tags": "a"}, "column 'tags' holds List(String), which cannot be 'a'; fix `where` in the study file"),
        ({"turns": True}, "column 'turns' holds Int64, which cannot be True; fix `where` in the study file"),
        ({"good": 1}, "column 'good' holds Boolean, which cannot be 1; fix `where` in the study file"),
        ({"dataset": 1}, "column 'dataset' holds String, which cannot be 1; fix `where` in the study file"),
        (
            {"origin": "lima"},
            "has no column 'origin', only dataset, messages, tags, good, turns, score; fix the study file",
        ),
        ({"dataset": "alpaca"}, "no row has dataset == 'alpaca'; fix `where` in the study file"),
    ],
)
def test_values_that_no_row_can_have(mixture: Path, where: dict[str, Any], message: str) -> None:
    assert refusal(mixture, where=where) == message


def test_a_fault_names_the_row_of_the_split(folder: Path) -> None:
    calls = [*turn("p", "q"), {"role": "assistant", "content": "r", "tool_calls": ["f"]}]
    rows = [{"dataset": "other", "messages": turn("p", "q")}, {"dataset": "lima", "messages": calls}]
    (folder / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert refusal(folder, where={"dataset": "lima"}) == (
        "row 2 has tool_calls in message 3, which samples cannot hold; fix or remove it"
    )
    assert ids(folder, where={"dataset": "other"}) == ["mixture_0"]


def test_own_ids_are_kept(folder: Path) -> None:
    pl.DataFrame({"key": [3, 4], "prompt": ["p", "q"], "completion": ["r", "s"]}).write_parquet(folder / "a.parquet")
    assert ids(folder, columns={"id": "key"}) == ["3", "4"]


def test_messages_with_unequal_keys(folder: Path) -> None:
    """The library `datasets` reads them as JSON."""
    parts = [{"role": "user", "content": [{"type": "text", "text": "p"}]}, {"role": "assistant", "content": "q"}]
    rows = [parts, turn("r", "s")]
    (folder / "a.jsonl").write_text("".join(json.dumps({"messages": row}) + "\n" for row in rows))
    assert load_hub(HubDataset(hub=str(folder))).frame["messages"].to_list() == [turn("p", "q"), turn("r", "s")]


CALLS = {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "f", "arguments": "{}"}}]}
SPOKEN = [{"from": "human", "value": "p"}, {"from": "gpt", "value": "q"}]
LINES: dict[str, tuple[list[dict[str, Any]], list[Any] | str]] = {
    "calls in one row": (
        [{"messages": turn("p", "q")}, {"messages": [turn("p", "q")[0], CALLS]}],
        "tool_calls in message 2",
    ),
    "null message": (
        [{"messages": turn("p", "q")}, {"messages": [turn("p", "q")[0], None]}],
        "messages that are not a list",
    ),
    "sharegpt, weights in one row": (
        [{"conversations": SPOKEN}, {"conversations": [{**each, "weight": 1} for each in SPOKEN]}],
        [turn("p", "q"), turn("p", "q")],
    ),
    "token ids": (
        [{"input_ids": [5, 6], "labels": [-100, 6], "attention_mask": [1, 1]}],
        [[{"role": "masked tokens", "content": "5"}, {"role": "tokens", "content": "6"}]],
    ),
}


@pytest.mark.parametrize(("rows", "expected"), LINES.values(), ids=LINES.keys())
def test_json_lines(folder: Path, rows: list[dict[str, Any]], expected: list[Any] | str) -> None:
    """With a byte order mark, as some programs write it."""
    (folder / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8-sig")
    if isinstance(expected, str):
        assert refusal(folder).startswith(f"row 2 has {expected}")
    else:
        loaded = load_hub(HubDataset(hub=str(folder)))
        assert loaded.frame["messages"].to_list() == expected
        assert loaded.ignored == ()


def test_lines_of_text_files(folder: Path) -> None:
    (folder / "a.txt").write_text("p q\nr\n")
    loaded = load_hub(HubDataset(hub=str(folder)))
    assert loaded.format == "text"
    assert [each[0]["content"] for each in loaded.frame["messages"].to_list()] == ["p q", "r"]


def test_subsets(folder: Path) -> None:
    lines = ["---", "configs:"]
    for name in ("main", "socratic"):
        lines += [f"- config_name: {name}", f"  data_files: {name}.jsonl"]
        (folder / f"{name}.jsonl").write_text(json.dumps({"id": name, "prompt": "p", "completion": "q"}))
    (folder / "README.md").write_text("\n".join([*lines, "---", ""]))
    assert ids(folder, subset="socratic") == ["socratic"]
    assert refusal(folder) == (
        "cannot be loaded (it has the subsets main, socratic); set `dataset.subset` in the study file to one of them"
    )
    assert refusal(folder, subset="other") == (
        f"cannot be loaded (BuilderConfig 'other' not found. Available: ['main', 'socratic']); {CHECK}"
    )


def test_what_is_not_there(mixture: Path) -> None:
    absent = mixture / "absent"
    assert refusal(absent) == f"cannot be loaded (Couldn't find any data file at {absent}.); {CHECK}"
    assert refusal(mixture, split="trian") == (
        f"cannot be loaded (Unknown split \"trian\". Should be one of ['train'].); {CHECK}"
    )


def test_a_script_is_not_run(folder: Path) -> None:
    (folder / "mixture.py").write_text("raise SystemExit")
    assert refusal(folder) == (
        "cannot be loaded (it is a script, which would run code); "
        "set `revision: refs/convert/parquet` if the Hub has a copy without it, or download its data"
    )


def test_files_of_other_columns(folder: Path) -> None:
    for name in ("a", "b"):
        (folder / f"{name}.jsonl").write_text(json.dumps({name: "p"}))
    assert refusal(folder) == (
        "cannot be loaded (Couldn't cast b: string a: string to {'a': Value('string')} because column names don't "
        "match); correct its files, or convert them to Parquet files of the same columns"
    )


def test_a_cache_that_cannot_be_written(mixture: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (mixture / "file").touch()
    cache = mixture / "file" / "datasets"
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", cache)
    assert refusal(mixture) == (
        f"cannot be loaded ({cache}: Not a directory); set HF_HOME to a folder that you can write"
    )
