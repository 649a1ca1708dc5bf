"""Samples from rows of every format, and what their rows may not hold."""

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from gradsim.dataset.samples import LoadedSamples, load_original_file
from gradsim.errors import SampleError
from gradsim.study.datasets import DatasetLayout

Row = dict[str, Any]


def said(role: str, text: Any, **others: Any) -> Row:
    return {"role": role, "content": text, **others}


def spoken(speaker: str, text: str, **others: Any) -> Row:
    return {"from": speaker, "value": text, **others}


def load(folder: Path, *rows: Row, **layout: Any) -> LoadedSamples:
    path = folder / "data.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    loss_on = layout.pop("loss_on", "last_answer")
    return load_original_file(path, DatasetLayout(**layout), loss_on)


def refusal(folder: Path, *rows: Row, **layout: Any) -> str:
    with pytest.raises(SampleError) as caught:
        load(folder, *rows, **layout)
    return str(caught.value).removeprefix(f"{folder / 'data.jsonl'}: ")


SHORT = [said("user", "p"), said("assistant", "q")]
LONG = [said("system", "s"), said("user", "p"), said("assistant", "q"), said("user", "r"), said("assistant", "t")]

ROWS: dict[str, tuple[Row, str, list[Row]]] = {
    "messages": ({"messages": SHORT}, "messages", SHORT),
    "any number of turns": ({"messages": LONG}, "messages", LONG),
    "text parts": (
        {
            "messages": [
                said("user", [{"type": "text", "text": "p "}, {"type": "text", "text": "q", "image_url": None}]),
                said("assistant", "r"),
            ]
        },
        "messages",
        [said("user", "p q"), said("assistant", "r")],
    ),
    "keys without values": (
        {
            "messages": [
                said("user", "p", tool_calls=None, reasoning_content="", weight=None),
                said("assistant", "q", tool_calls=[], weight=1, function_call={"name": None, "arguments": None}),
            ],
            "tools": [],
            "text": None,
        },
        "messages",
        SHORT,
    ),
    "sharegpt": (
        {"conversations": [spoken("system", "s"), spoken("human", "p"), spoken("gpt", "q", weight=None)]},
        "sharegpt",
        LONG[:3],
    ),
    "sharegpt with roles": ({"conversations": [spoken("user", "p"), spoken("assistant", "q")]}, "sharegpt", SHORT),
    "prompt and completion as text": ({"prompt": "p", "completion": "q"}, "prompt_completion", SHORT),
    "prompt and completion as messages": (
        {"prompt": LONG[:2], "completion": LONG[2:3]},
        "prompt_completion",
        LONG[:3],
    ),
    "alpaca": (
        {"instruction": "Add.", "input": "1, 2", "output": "3"},
        "alpaca",
        [said("user", "Add.\n\n1, 2"), said("assistant", "3")],
    ),
    "alpaca with an empty input": ({"instruction": "p", "input": "", "output": "q"}, "alpaca", SHORT),
    "alpaca without input": ({"instruction": "p", "output": "q", "text": "### p ### q"}, "alpaca", SHORT),
    "text": ({"text": " p q\n", "source": "web"}, "text", [said("text", " p q\n")]),
    "tokens with labels": (
        {"input_ids": [5, 6, 7, 8], "labels": [-100, 6, 7, -100]},
        "tokens",
        [said("masked tokens", "5"), said("tokens", "6 7"), said("masked tokens", "8")],
    ),
    "tokens, all with a loss": ({"input_ids": [5, 6], "labels": [5, 6]}, "tokens", [said("tokens", "5 6")]),
    "tokens with a mask": (
        {"input_ids": [5, 6, 7], "completion_mask": [0, 1, 1]},
        "tokens",
        [said("masked tokens", "5"), said("tokens", "6 7")],
    ),
    "tokens with two masks": (
        {"input_ids": [5, 6, 7], "completion_mask": [0, 1, 1], "assistant_masks": [1, 0, 1], "labels": None},
        "tokens",
        [said("masked tokens", "5 6"), said("tokens", "7")],
    ),
    "padded tokens": (
        {
            "input_ids": [5, 6, 7, 0, 0],
            "labels": [-100, 6, 7, -100, -100],
            "attention_mask": [1, 1, 1, 0, 0],
            "position_ids": [0, 1, 2, 0, 0],
            "seq_lengths": [3],
        },
        "tokens",
        [said("masked tokens", "5"), said("tokens", "6 7")],
    ),
    "a text and its tokens beside the conversation": (
        {"messages": SHORT, "text": "p q", "input_ids": [5], "labels": [5]},
        "messages",
        SHORT,
    ),
    "other columns": ({"messages": SHORT, "prompt": "p", "source": "mine"}, "messages", SHORT),
}


@pytest.mark.parametrize(("row", "name", "messages"), ROWS.values(), ids=ROWS.keys())
def test_a_row_of_a_format(tmp_path: Path, row: Row, name: str, messages: list[Row]) -> None:
    for layout in ({}, {"format": name}):
        loaded = load(tmp_path, {"id": "a", **row}, {"id": 7, **row}, **layout)
        assert loaded.frame.rows() == [("a", messages), ("7", messages)]
        assert loaded.format == name


def test_columns_of_other_names(tmp_path: Path) -> None:
    row = {"key": 3, "question": "p", "context": "c", "answer": "q"}
    columns = {"id": "key", "instruction": "question", "input": "context", "output": "answer"}
    assert load(tmp_path, row, columns=columns).frame.rows() == [("3", [said("user", "p\n\nc"), SHORT[1]])]
    loaded = load(tmp_path, {"conversations": SHORT}, columns={"messages": "conversations"})
    assert (loaded.format, loaded.frame["messages"].to_list()) == ("messages", [SHORT])


def test_rows_without_ids_are_numbered(tmp_path: Path) -> None:
    assert load(tmp_path, {"messages": SHORT}, {"messages": SHORT}).frame["id"].to_list() == ["row_0", "row_1"]
    loaded = load(tmp_path, {"id": "a", "messages": SHORT}, {"messages": SHORT})
    assert loaded.frame["id"].to_list() == ["a", None]  # refused by `validate`


def test_what_is_not_used_is_named(tmp_path: Path) -> None:
    row = {"source": "mine", "messages": [said("user", "p", name="Ann", time=None), SHORT[1]], "text": "p q"}
    assert load(tmp_path, row).ignored == ("source", "text", "name of messages")


def test_a_weight_of_zero_where_there_is_no_loss_anyway(tmp_path: Path) -> None:
    def weighted(*places: int) -> Row:
        return {"messages": [{**each, "weight": int(place not in places)} for place, each in enumerate(LONG)]}

    for places, allowed, role in [
        ((0, 1, 3), ("last_answer", "all_answers"), "system"),
        ((1,), ("last_answer", "all_answers"), "user"),
        ((2,), ("last_answer",), "assistant"),
    ]:
        for loss_on in ("last_answer", "all_answers", "everything"):
            if loss_on in allowed:
                loaded = load(tmp_path, {"messages": LONG}, weighted(*places), loss_on=loss_on)
                assert loaded.frame["messages"].to_list() == [LONG, LONG]
                assert f"weight 0 of {role} messages" in loaded.ignored
            else:
                assert refusal(tmp_path, {"messages": LONG}, weighted(*places), loss_on=loss_on) == (
                    f"line 2 has weight 0 in a {role} message, which `chat.loss_on: {loss_on}` covers; fix or remove it"
                )
    human = {"conversations": [{**spoken("human", "p"), "weight": 0}, spoken("gpt", "q")]}
    assert load(tmp_path, human).ignored == ("weight 0 of user messages",)


FORMATS = (
    "messages: messages; sharegpt: conversations; prompt_completion: prompt, completion; alpaca: instruction, output; "
    "text: text; tokens: input_ids"
)
CHOICES: dict[str, tuple[list[Row], Row, str]] = {
    "two formats": (
        [{"messages": SHORT, "prompt": "p", "completion": "q"}],
        {},
        "its columns fit the formats messages and prompt_completion; "
        "set `dataset.format` in the study file to one of them",
    ),
    "rows of two formats": (
        [{"messages": SHORT}, {"instruction": "p", "output": "q"}, {"conversations": []}],
        {},
        "its columns fit the formats messages, sharegpt and alpaca; "
        "set `dataset.format` in the study file to one of them",
    ),
    "no format": (
        [{"question": "p", "answer": "q"}],
        {},
        f"its columns 'question', 'answer' fit no format ({FORMATS}); "
        "set `dataset.format` and `dataset.columns` in the study file",
    ),
    "a text and its tokens": (
        [{"text": "p", "input_ids": [1], "labels": [1]}],
        {},
        "its columns fit the formats text and tokens; set `dataset.format` in the study file to one of them",
    ),
    "turns of texts": (
        [{"text": "p"}],
        {"single_turn": True},
        "has no turns (format text); remove `dataset.single_turn`",
    ),
    "another format": (
        [{"messages": SHORT}],
        {"format": "alpaca"},
        "has no column 'instruction', only 'messages'; fix `dataset.format` and `dataset.columns` in the study file",
    ),
    "a name that is not there": (
        [{"messages": SHORT}],
        {"columns": {"id": "key"}},
        "has no column 'key', only 'messages'; fix `dataset.format` and `dataset.columns` in the study file",
    ),
}


@pytest.mark.parametrize(("rows", "layout", "message"), CHOICES.values(), ids=CHOICES.keys())
def test_columns_that_decide_no_format(tmp_path: Path, rows: list[Row], layout: Row, message: str) -> None:
    assert refusal(tmp_path, *rows, **layout) == message


def answer(**others: Any) -> Row:
    return {"messages": [SHORT[0], said("assistant", "q", **others)]}


REFUSED: dict[str, tuple[Row, str]] = {
    "tool calls": (answer(tool_calls=[{"id": "1"}]), "has tool_calls in message 2, which samples cannot hold"),
    "reasoning": (answer(reasoning_content="hm"), "has reasoning_content in message 2, which samples cannot hold"),
    "weight": (answer(weight=0), "has weight 0 in message 2, but samples are trained on in full"),
    "weight of a prompt": (
        {"messages": [said("user", "p", weight=0.5), SHORT[1]]},
        "has weight 0.5 in message 1, but samples are trained on in full",
    ),
    "tools": ({"messages": SHORT, "tools": [{"type": "function"}]}, "has tools, which samples cannot hold"),
    "system": ({"instruction": "p", "output": "q", "system": "s"}, "has system, which samples cannot hold"),
    "image": (
        {"messages": [said("user", [{"type": "text", "text": "p"}, {"type": "image", "url": "x"}]), SHORT[1]]},
        "has a part of the content in message 1 that is not text but 'image'",
    ),
    "part with more than text": (
        {"messages": [said("user", [{"type": "text", "text": "p", "cache_control": {"type": "x"}}]), SHORT[1]]},
        "has a part of the content in message 1 with cache_control, which samples cannot hold",
    ),
    "part that is no object": (
        {"messages": [said("user", ["p"]), SHORT[1]]},
        "has a part of the content in message 1 that is not text but None",
    ),
    "role that is no text": ({"messages": [{"role": 1, "content": "p"}]}, "has a role in message 1 that is not text"),
    "null message": ({"messages": [None]}, "has messages that are not a list of (role, content) objects"),
    "tool speaker": (
        {"conversations": [spoken("human", "p"), spoken("tool", "q")]},
        "has the unknown speaker 'tool' in message 2, not human, user, gpt, assistant or system",
    ),
    "roles instead of speakers": (
        {"conversations": SHORT},
        "has no 'from' in message 1 (messages with role and content are the format messages)",
    ),
    "no output": ({"instruction": "p", "output": None}, "has no output"),
    "no completion": ({"prompt": "p", "completion": None}, "has no completion"),
    "number": ({"prompt": "p", "completion": 3}, "has completion that is not text"),
    "input that is no text": ({"instruction": "p", "input": 3, "output": "q"}, "has input that is not text"),
    "id": ({"id": 1.5, "messages": SHORT}, "has an id that is not text"),
    "text that is no text": ({"text": 3}, "has text that is not text"),
    "no text": ({"text": None, "id": "a"}, "has no text"),
    "role of a text": ({"messages": [said("text", "p")]}, "has the unknown role 'text' in message 1"),
    "role of tokens": ({"messages": [said("tokens", "p")]}, "has the unknown role 'tokens' in message 1"),
    "tokens without labels": (
        {"input_ids": [5, 6]},
        "has neither labels nor assistant_masks, completion_mask or loss_mask",
    ),
    "null tokens": ({"input_ids": None, "labels": [5]}, "has no input_ids"),
    "no tokens": ({"input_ids": [], "labels": []}, "has no tokens"),
    "tokens as text": ({"input_ids": "[5, 6]", "labels": "[5, 6]"}, "has input_ids that are not a list of integers"),
    "fractions": ({"input_ids": [5.0], "labels": [5.0]}, "has input_ids that are not a list of integers"),
    "negative tokens": ({"input_ids": [5, -1], "labels": [5, -1]}, "has the token -1"),
    "too few labels": ({"input_ids": [5, 6], "labels": [6]}, "has 1 labels, but 2 input_ids"),
    "shifted labels": (
        {"input_ids": [5, 6, 7], "labels": [6, 7, -100]},
        "has the label 6 at position 0, which is neither -100 nor the token there (5)",
    ),
    "labels against a mask": (
        {"input_ids": [5, 6], "labels": [5, 6], "loss_mask": [0, 1], "completion_mask": [True, True]},
        "has labels that contradict completion_mask and loss_mask",
    ),
    "padding on the left": (
        {"input_ids": [0, 5, 6], "labels": [-100, 5, 6], "attention_mask": [0, 1, 1]},
        "has an attention_mask other than ones and then zeros, so padding moves its tokens",
    ),
    "labels in the padding": (
        {"input_ids": [5, 6, 0], "labels": [5, 6, 0], "attention_mask": [1, 1, 0]},
        "has labels where attention_mask is 0",
    ),
    "packed by positions": (
        {"input_ids": [5, 6, 7], "labels": [5, 6, 7], "position_ids": [0, 1, 0]},
        "has position_ids other than 0, 1, 2, ..., as several texts in one row have",
    ),
    "packed by lengths": (
        {"input_ids": [5, 6, 7], "labels": [5, 6, 7], "seq_lengths": [2, 1]},
        "has several texts (seq_lengths)",
    ),
    "tools as text": ({"messages": SHORT, "tools": "["}, "has tools, which samples cannot hold"),
}


@pytest.mark.parametrize(("row", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_rows_that_samples_cannot_hold(tmp_path: Path, row: Row, message: str) -> None:
    good = {name: SHORT if name == "messages" else value for name, value in row.items() if name not in {"id", "tools"}}
    if row.keys() & {"messages"}:
        assert refusal(tmp_path, good, row) == f"line 2 {message}; fix or remove it"
    else:
        layout = {"format": "text"} if "text" in row else {"format": "tokens"} if "input_ids" in row else {}
        assert refusal(tmp_path, row, **layout) == f"line 1 {message}; fix or remove it"


def test_values_nested_deeper_than_python_can_follow(tmp_path: Path) -> None:
    """JSON is read in C, which goes deeper than the functions that look at its values."""
    empty: list[Any] = []
    for _ in range(600):
        empty = [empty]
    assert refusal(tmp_path, answer(tool_calls=empty)) == "line 1 is nested too deeply; fix or remove it"


def test_null_structs_in_parquet(tmp_path: Path) -> None:
    """Unequal keys become null in tables; a message that is null itself is refused with its row."""
    path = tmp_path / "a.parquet"
    calls = said("assistant", "q", tool_calls=[{"name": "f"}])
    keys = pl.DataFrame({"messages": [[SHORT[0], calls], SHORT, [SHORT[0], None]]})
    keys[1:2].write_parquet(path)
    assert load_original_file(path, DatasetLayout()).frame["messages"].to_list() == [SHORT]
    for start, message in [
        (0, "row 1 has tool_calls in message 2, which samples cannot hold"),
        (1, "row 2 has messages that are not a list of (role, content) objects"),
    ]:
        keys[start:].write_parquet(path)
        with pytest.raises(SampleError) as caught:
            load_original_file(path, DatasetLayout())
        assert str(caught.value) == f"{path}: {message}; fix or remove it"
