"""Every kind of file gives the same rows, and an unreadable file gives a clear error."""

import csv
import gzip
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import polars as pl
import pyarrow as pa
import pytest

from gradsim.dataset.samples import load_file, load_original_file
from gradsim.errors import GradsimError, TableError
from gradsim.study.datasets import DatasetLayout

ROWS: list[dict[str, Any]] = [
    {"id": "007", "instruction": 'Say "é",\n\u2028twice', "input": None, "output": "é, é"},
    {"id": "8", "instruction": "Add.", "input": "1, 2", "output": "3" * 200_000},
]
SAMPLES = [
    (
        row["id"],
        [
            {"role": "user", "content": "\n\n".join(filter(None, (row["instruction"], row["input"])))},
            {"role": "assistant", "content": row["output"]},
        ],
    )
    for row in ROWS
]


def write_jsonl(path: Path) -> None:
    path.write_text("\n\n".join(json.dumps(row, ensure_ascii=False) for row in ROWS), encoding="utf-8")


def write_csv(path: Path) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, ROWS[0])
        writer.writeheader()
        writer.writerows(ROWS)


WRITERS: dict[str, Callable[[Path], object]] = {
    "jsonl": write_jsonl,
    "json": lambda path: path.write_text(json.dumps(ROWS, indent=1), encoding="utf-8"),
    "csv": write_csv,
    "parquet": lambda path: pl.DataFrame(ROWS).write_parquet(path),
}


def rows_of(path: Path) -> list[tuple[Any, ...]]:
    return load_original_file(path, DatasetLayout()).frame.rows()


def refusal(path: Path) -> str:
    with pytest.raises(GradsimError) as caught:
        load_original_file(path, DatasetLayout())
    assert "\n" not in str(caught.value)
    return str(caught.value).removeprefix(f"{path}: ")


@pytest.mark.parametrize("suffix", WRITERS)
def test_the_same_rows_from_every_kind_of_file(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"my.rows.{suffix}"
    WRITERS[suffix](path)
    assert rows_of(path) == SAMPLES
    packed = Path(f"{path}.gz")
    packed.write_bytes(gzip.compress(path.read_bytes()))
    assert rows_of(packed) == SAMPLES
    packed.write_bytes(packed.read_bytes()[:-20])
    assert refusal(packed).startswith("cannot be read (")
    packed = Path(f"{path}.zst")
    with pa.output_stream(packed, compression="zstd") as stream:
        stream.write(path.read_bytes())
    assert rows_of(packed) == SAMPLES
    packed.write_bytes(path.read_bytes())
    assert refusal(packed).startswith("cannot be read (ZSTD decompress failed")


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
@pytest.mark.parametrize("suffix", ["jsonl", "json", "csv"])
def test_text_with_a_byte_order_mark(tmp_path: Path, suffix: str, encoding: str) -> None:
    path = tmp_path / f"a.{suffix}"
    WRITERS[suffix](path)
    path.write_bytes(path.read_bytes().decode().encode(encoding))
    assert rows_of(path) == SAMPLES


def test_a_folder_that_datasets_saved(tmp_path: Path) -> None:
    data = datasets.Dataset.from_list(ROWS)
    data.save_to_disk(tmp_path / "saved")
    assert rows_of(tmp_path / "saved") == SAMPLES
    datasets.DatasetDict(train=data, test=data.select([0])).save_to_disk(tmp_path / "both")
    assert refusal(tmp_path / "both") == (
        f"contains the splits train, test; name one, such as {tmp_path / 'both' / 'train'}"
    )
    assert rows_of(tmp_path / "both" / "test") == SAMPLES[:1]


def test_a_folder_of_messages_with_unequal_keys(tmp_path: Path) -> None:
    """The library `datasets` stores them as JSON."""
    messages = [{"role": "user", "content": "p"}, {"role": "assistant", "content": [{"type": "text", "text": "q"}]}]
    features = datasets.Features({"messages": datasets.List(datasets.Json())})
    datasets.Dataset.from_list([{"messages": messages}], features=features).save_to_disk(tmp_path / "saved")
    assert rows_of(tmp_path / "saved") == [
        ("row_0", [{"role": "user", "content": "p"}, {"role": "assistant", "content": "q"}])
    ]


def test_another_folder(tmp_path: Path) -> None:
    assert re.fullmatch(
        r"not a folder that `save_to_disk` wrote \(.*\); name a file, or a folder of files as `dataset\.hub`",
        refusal(tmp_path),
    )


def test_a_parquet_file_that_polars_panics_on(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "panic.parquet"
    shutil.copy(Path(__file__).with_name("panic.parquet"), path)
    with pytest.raises(pl.exceptions.PanicException):
        pl.read_parquet(path)
    capfd.readouterr()
    with pytest.raises(TableError):
        load_original_file(path, DatasetLayout())
    assert refusal(path).startswith("not a readable Parquet file (")
    assert capfd.readouterr().err == ""


GOOD = '{"instruction": "p", "output": "q"}'
DAMAGED: dict[str, tuple[str, str, str]] = {
    "nested objects": (
        "a.jsonl",
        f'{GOOD}\n{{"a": {"[" * 70_000}{"]" * 70_000}}}',
        "line 2 is nested too deeply; fix or remove it",
    ),
    "nested objects in a list": ("a.json", "[" * 70_000, "is nested too deeply; fix or remove it"),
    "object instead of a list": (
        "a.json",
        GOOD,
        "is not a list of objects; make it one, or name it .jsonl if it has one per line",
    ),
    "text in a list": ("a.json", f'[{GOOD}, "p"]', "row 2 is not an object; fix or remove it"),
    "lines in a list": (
        "a.json",
        f"{GOOD}\n{GOOD}",
        "is not JSON text (Extra data: line 2 column 1 (char 36)); fix or remove it",
    ),
    "key twice in a line": (
        "a.jsonl",
        f'{GOOD}\n{{"messages": [{{"role": "user", "content": "p", "role": "assistant"}}]}}',
        "line 2 has the key 'role' twice in an object; fix or remove it",
    ),
    "key twice in a row": (
        "a.json",
        f'[\n{GOOD}, {GOOD},\n{{"output": "p", "instruction": "\\u0022", "output": "q"}}]',
        "row 3 has the key 'output' twice in an object; fix or remove it",
    ),
    "key twice, written in another way": (
        "a.jsonl",
        '{"output": "\\u0022\\u0022\\u0022", "instruction": "p", "outp\\u0075t": "q"}',
        "line 1 has the key 'output' twice in an object; fix or remove it",
    ),
    "too many cells": (
        "a.csv",
        'instruction,output\n"p\np",q\n\np,q,r\n',
        "line 5 has 3 cells, but the first line has 2; quote cells with commas and line breaks",
    ),
    "too few cells": (
        "a.csv",
        "instruction,output\np\n",
        "line 2 has 1 cells, but the first line has 2; quote cells with commas and line breaks",
    ),
    "quote without an end": (
        "a.csv",
        'instruction,output\np,q\np,"q\np,q\n',
        "line 3 is not comma-separated text (unexpected end of data); fix it",
    ),
    "empty cell": ("a.csv", "instruction,output\np,q\np,\n", "line 3 has no output; fix or remove it"),
    "columns of one name": ("a.csv", "output,output\np,q\n", "has two columns 'output'; rename one"),
}


@pytest.mark.parametrize(("name", "text", "message"), DAMAGED.values(), ids=DAMAGED.keys())
def test_files_that_cannot_be_read(tmp_path: Path, name: str, text: str, message: str) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    assert refusal(tmp_path / name) == message


def test_keys_that_occur_in_several_objects_and_quotes_in_texts(tmp_path: Path) -> None:
    row = {"messages": [{"role": "user", "content": 'a "p" \\ "'}, {"role": "assistant", "content": "\u0022"}]}
    text = json.dumps([row, row]).replace("\\\\", "\\u005c") + "\n"
    (tmp_path / "a.json").write_text(text.replace('\\"', "\\u0022"), encoding="utf-8")
    loaded = load_original_file(tmp_path / "a.json", DatasetLayout())
    assert loaded.frame["messages"].to_list() == [row["messages"]] * 2


def test_another_encoding_is_named_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b"instruction,output\np,\xe9\n")
    assert refusal(path).startswith("line 2 is not UTF-8 text (")
    path.write_bytes("instruction,output\n".encode("utf-16") + b"\n")
    assert refusal(path).startswith("line 2 is not UTF-16 text (")


def test_queries_need_ids(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(GOOD, encoding="utf-8")
    with pytest.raises(GradsimError) as caught:
        load_file(path)
    assert str(caught.value) == f"{path}: has no column 'id'; give every sample the id of its original"
