"""Read the rows of dataset files, whatever their columns.

`read_file` reads rows, `gradsim.dataset.formats` turns them into messages, and `gradsim.dataset.samples` checks these.
"""

import codecs
import csv
import io
import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from gradsim.environment import extensions
from gradsim.errors import SampleError, TableError, enumerated, parsing


class RowError(Exception):
    """What is wrong with a row, as the rest of a sentence that begins with its place."""


@dataclass(frozen=True)
class Rows:
    """Rows of a dataset as they were read.

    Attributes:
        source: name of the data in error messages, such as its path.
        columns: names of the columns.
        filled: columns with at least one value that is not null.
        numbers: number of each row in the data, from 0.
        read: function from columns to the values of each row by column.
        lines: line of the file where each row begins; None if the file has no lines.
    """

    source: str
    columns: Sequence[str]
    filled: frozenset[str]
    numbers: Sequence[int]
    read: Callable[[Sequence[str]], Iterable[Mapping[str, Any]]]
    lines: Sequence[int] | None = None

    def place(self, position: int) -> str:
        """Return what error messages call the row at a position: `line 3`, or `row 3` counted from 1."""
        return f"line {self.lines[position]}" if self.lines else f"row {self.numbers[position] + 1}"


def read_file(path: Path) -> Rows:
    """Return the rows of a file.

    The suffix selects the reader: one of `READERS`, optionally followed by `.gz` or `.zst`, or a function from a path
    to a frame that an installed package adds as the entry point `SUFFIX = "MODULE:FUNCTION"` in the group
    `gradsim.dataset_formats`.

    Raises:
        SampleError: no such file, an unknown suffix, or a line or row that cannot be read.
        TableError: a Parquet file cannot be read.
    """
    added = extensions("dataset_formats")
    compression = _COMPRESSIONS.get(path.suffix)
    suffix = (Path(path.stem) if compression else path).suffix.removeprefix(".")
    if suffix not in READERS and (compression or suffix not in added):
        formats = enumerated([f".{name}" for name in (*READERS, *added)], "or")
        raise SampleError(f"{path}: samples are read from {formats} files; convert it")
    if not path.is_file():
        raise SampleError(f"{path}: no such file; fix the path in the study file")
    if suffix not in READERS:
        frame: pl.DataFrame = added[suffix].load()(path)
        return _rows_of_table(str(path), frame.to_arrow())
    try:
        with pa.input_stream(str(path), compression=compression) as stream:
            data: bytes = stream.read()
    except OSError as error:
        raise SampleError(f"{path}: cannot be read ({error}); write or download it again") from error
    return READERS[suffix](str(path), data)


def _read_parquet(source: str, data: bytes) -> Rows:
    with parsing(TableError, f"{source}: not a readable Parquet file", "write or download it again"):
        # Polars panics on some damaged files, and prints a stack trace.
        table = pq.ParquetFile(pa.BufferReader(data), page_checksum_verification=True).read()
        table.validate(full=True)
    return _rows_of_table(source, table)


def _read_jsonl(source: str, data: bytes) -> Rows:
    objects, lines = [], []
    for number, line in enumerate(_utf8(source, data).split(b"\n"), start=1):
        if line.strip():
            objects.append(_object(_json(line, f"{source}: line {number}"), f"{source}: line {number}"))
            lines.append(number)
    return _rows_of_objects(source, objects, lines)


def _read_json(source: str, data: bytes) -> Rows:
    values = _json(_utf8(source, data), f"{source}:")
    if not isinstance(values, list):
        raise SampleError(f"{source}: is not a list of objects; make it one, or name it .jsonl if it has one per line")
    return _rows_of_objects(
        source, [_object(value, f"{source}: row {number}") for number, value in enumerate(values, start=1)]
    )


def _read_csv(source: str, data: bytes) -> Rows:
    """Read comma-separated text; empty cells are null."""
    csv.field_size_limit(sys.maxsize)
    reader = csv.reader(io.StringIO(_utf8(source, data).decode(), newline=""), strict=True)
    objects, lines = list[dict[str, Any]](), list[int]()
    line = 1
    try:
        header = next(reader, [])
        _refuse_duplicates(source, header)
        line = reader.line_num + 1
        for cells in reader:
            if len(cells) not in {0, len(header)}:
                raise SampleError(
                    f"{source}: line {line} has {len(cells)} cells, but the first line has {len(header)}; "
                    "quote cells with commas and line breaks"
                )
            if cells:
                objects.append({name: cell or None for name, cell in zip(header, cells, strict=True)})
                lines.append(line)
            line = reader.line_num + 1
    except csv.Error as error:
        raise SampleError(f"{source}: line {line} is not comma-separated text ({error}); fix it") from error
    return _rows_of_objects(source, objects, lines)


READERS: Mapping[str, Callable[[str, bytes], Rows]] = MappingProxyType(
    {"parquet": _read_parquet, "jsonl": _read_jsonl, "json": _read_json, "csv": _read_csv}
)
"""Readers of the built-in file types by suffix: functions from the file's name and content to its rows."""

_COMPRESSIONS = {".gz": "gzip", ".zst": "zstd"}


def _rows_of_table(source: str, table: pa.Table) -> Rows:
    _refuse_duplicates(source, table.column_names)
    return Rows(
        source,
        table.column_names,
        frozenset(name for name in table.column_names if table.column(name).null_count < table.num_rows),
        range(table.num_rows),
        lambda columns: (row for batch in table.select(columns).to_batches() for row in batch.to_pylist()),
    )


def _rows_of_objects(source: str, objects: Sequence[Mapping[str, Any]], lines: Sequence[int] | None = None) -> Rows:
    return Rows(
        source,
        list(dict.fromkeys(name for each in objects for name in each)),
        frozenset(name for each in objects for name, value in each.items() if value is not None),
        range(len(objects)),
        lambda columns: ({name: each.get(name) for name in columns} for each in objects),
        lines,
    )


def _refuse_duplicates(source: str, columns: Sequence[str]) -> None:
    for name in columns:
        if columns.count(name) > 1:
            raise SampleError(f"{source}: has two columns {name!r}; rename one")


def _utf8(source: str, data: bytes) -> bytes:
    """Return text without its byte order mark, in UTF-8."""
    encoding = "utf-16" if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8"
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise SampleError(f"{source}: line {line} is not {encoding.upper()} text ({error}); save it as such") from error
    return text.removeprefix("\ufeff").encode()


def _json(text: bytes, place: str) -> Any:
    try:
        value = json.loads(text)
        written = json.dumps(value, ensure_ascii=False).encode()  # rejects lone surrogates
        # A repeated key is written once. This finds it faster than a function that is called for each object.
        if text.count(b'"') != written.count(b'"') or rb"\u0022" in text:
            _refuse_repeated_keys(text.decode(), place)
    except RecursionError as error:
        raise SampleError(f"{place} is nested too deeply; fix or remove it") from error
    except ValueError as error:
        raise SampleError(f"{place} is not JSON text ({error}); fix or remove it") from error
    return value


def _refuse_repeated_keys(text: str, place: str) -> None:
    """Raise SampleError if an object repeats a key; JSON readers would silently keep the last value."""
    rows = 0
    decoder = json.JSONDecoder(object_pairs_hook=_without_repeated_keys)
    try:
        if not text.lstrip().startswith("["):
            decoder.decode(text)
            return
        position = text.index("[") + 1
        while text[position] != "]":
            if text[position] in " \t\r\n,":
                position += 1
                continue
            rows += 1
            _, position = decoder.raw_decode(text, position)
    except RowError as error:
        raise SampleError(f"{place}{f' row {rows}' if rows else ''} {error}; fix or remove it") from error


def _without_repeated_keys(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        repeated = next(name for name in names if names.count(name) > 1)
        raise RowError(f"has the key {repeated!r} twice in an object")
    return found


def _object(value: Any, place: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise SampleError(f"{place} is not an object; fix or remove it")
    return value
