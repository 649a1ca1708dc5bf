"""Load samples, each a user message and an assistant answer, from a file, and validate them.

Every frame of samples has the schema `SAMPLES_SCHEMA`. Loading only converts data to this schema; `validate` rejects
what a study cannot use (empty answers, unknown roles, conversations without an answer at the end).
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import polars as pl

from gradsim.environment import extensions
from gradsim.errors import SampleError, TableError, enumerated

SAMPLES_SCHEMA = pl.Schema(
    {
        "id": pl.String(),
        "messages": pl.List(pl.Struct({"role": pl.String(), "content": pl.String()})),
    }
)

KNOWN_ROLES = ("system", "user", "assistant")


def load_file(path: Path) -> pl.DataFrame:
    """Return the samples of a file; other columns than `id` and `messages` are ignored.

    The suffix selects the format: `.parquet`, `.jsonl`, or one that an installed package adds as an entry point
    `SUFFIX = "MODULE:FUNCTION"` in the group `gradsim.dataset_formats`, a function from a path to a frame.

    Raises:
        SampleError: no such file, an unknown suffix, or a line or column that cannot hold samples.
        TableError: a Parquet file cannot be read.
    """
    suffix, added = path.suffix.removeprefix("."), extensions("dataset_formats")
    if suffix not in {**_READERS, **added}:
        formats = enumerated([f".{name}" for name in (*_READERS, *added)], "or")
        raise SampleError(f"{path}: samples are read from {formats} files; convert it")
    if not path.is_file():
        raise SampleError(f"{path}: no such file; fix the path in the study file")
    read: Callable[[Path], pl.DataFrame] = _READERS.get(suffix) or added[suffix].load()
    return conform(read(path), str(path))


def single_turn(samples: pl.DataFrame) -> pl.DataFrame:
    """Return the samples with exactly two messages."""
    return samples.filter(pl.col("messages").list.len() == 2)


def validate(samples: pl.DataFrame, expected: int | None, source: str) -> pl.DataFrame:
    """Return the samples in `SAMPLES_SCHEMA`, or raise if any of them is invalid.

    Args:
        samples: Frame with columns `id` and `messages`.
        expected: Number of samples stated by the study; None accepts any number but zero.
        source: Name of the data in error messages, such as its path.

    Raises:
        SampleError: The frame or a sample is invalid; the message names the source and the first invalid sample.
    """
    samples = conform(samples, source)
    if samples.is_empty():
        raise SampleError(f"{source}: holds no samples; give at least one")
    _check_ids(samples["id"].to_list(), source)
    for identifier, messages in samples.iter_rows():
        fault = _fault(messages)
        if fault:
            raise SampleError(f"{source}: sample {identifier!r} {fault}; fix or remove it")
    if expected is not None and samples.height != expected:
        raise SampleError(
            f"{source}: holds {samples.height} samples but the study states {expected}; "
            f"set `samples: {samples.height}` in the study file"
        )
    return samples


def _check_ids(identifiers: Sequence[str | None], source: str) -> None:
    first_row: dict[str, int] = {}
    for row, identifier in enumerate(identifiers, start=1):
        if identifier is None:
            raise SampleError(f"{source}: row {row} has no id; give every sample its own")
        if identifier in first_row:
            raise SampleError(
                f"{source}: rows {first_row[identifier]} and {row} have the same id {identifier!r}; "
                "give every sample its own"
            )
        first_row[identifier] = row


def _fault(messages: Sequence[Mapping[str, str | None]] | None) -> str | None:
    """Return what is wrong with a sample's messages, or None if they are valid."""
    if not messages:
        return "has no messages"
    for number, message in enumerate(messages, start=1):
        for key in ("role", "content"):
            if message[key] is None:
                return f"has no {key} in message {number}"
        if message["role"] not in KNOWN_ROLES:
            return f"has the unknown role {message['role']!r} in message {number}"
    roles = [message["role"] for message in messages]
    if roles[-2:] != ["user", "assistant"]:
        return f"does not end with a user message and its answer, but has {', '.join(map(str, roles))}"
    for message, name in zip(messages[-2:], ("prompt", "answer"), strict=True):
        if not (message["content"] or "").strip():
            return f"has an empty {name}"
    return None


def _read_parquet(path: Path) -> pl.DataFrame:
    try:
        return pl.read_parquet(path)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise TableError(f"{path}: not a readable Parquet file; write or download it again") from error


def conform(frame: pl.DataFrame, source: str) -> pl.DataFrame:
    """Return `id` and `messages` cast to `SAMPLES_SCHEMA`, with null for missing message fields."""
    for column in SAMPLES_SCHEMA:
        if column not in frame.columns:
            raise SampleError(f"{source}: has no column {column!r}; samples need the columns id and messages")
    id_type = frame.schema["id"]
    if not (_is_text(id_type) or id_type.is_integer()):
        raise SampleError(f"{source}: column 'id' holds {id_type}; make it text")
    if frame.schema == SAMPLES_SCHEMA:
        return frame
    fields = _message_fields(frame.schema["messages"])
    if fields is None:
        raise SampleError(
            f"{source}: column 'messages' holds {frame.schema['messages']}; make it lists of (role, content) text"
        )
    message = pl.struct(
        pl.element().struct.field(name).cast(pl.String) if name in fields else pl.lit(None, pl.String).alias(name)
        for name in ("role", "content")
    )
    return frame.select(pl.col("id").cast(pl.String), pl.col("messages").list.eval(message))


def _message_fields(data_type: pl.DataType) -> set[str] | None:
    """Return the field names of a messages column, or None if its type cannot represent messages."""
    if not (isinstance(data_type, pl.List) and isinstance(data_type.inner, pl.Struct)):
        return None
    fields = {field.name: field.dtype for field in data_type.inner.fields}
    wrong = [fields[name] for name in ("role", "content") if name in fields and not _is_text(fields[name])]
    return None if wrong else set(fields)


def _is_text(data_type: Any) -> bool:
    return data_type in (pl.String, pl.Categorical, pl.Enum, pl.Null)


def _read_jsonl(path: Path) -> pl.DataFrame:
    return pl.DataFrame(list(_jsonl_rows(path)), schema=SAMPLES_SCHEMA, orient="row")


def _jsonl_rows(path: Path) -> Iterator[tuple[str | None, list[dict[str, str | None]] | None]]:
    for number, line in enumerate(path.read_bytes().split(b"\n"), start=1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
            json.dumps(value, ensure_ascii=False).encode()  # rejects lone surrogates
        except ValueError as error:
            raise SampleError(f"{path}: line {number} is not JSON text ({error}); fix or remove it") from error
        fault = _jsonl_fault(value)
        if fault:
            raise SampleError(f"{path}: line {number} {fault}; fix or remove it")
        identifier, messages = value.get("id"), value.get("messages")
        yield (
            None if identifier is None else str(identifier),
            None
            if messages is None
            else [{"role": message.get("role"), "content": message.get("content")} for message in messages],
        )


def _jsonl_fault(value: Any) -> str | None:
    """Return why a JSON value cannot be a sample, or None; `validate` checks for missing fields."""
    if not isinstance(value, dict):
        return "is not an object with id and messages"
    identifier, messages = value.get("id"), value.get("messages")
    if isinstance(identifier, bool) or not isinstance(identifier, str | int | None):
        return "has an id that is not text"
    if messages is None:
        return None
    if not (isinstance(messages, list) and all(isinstance(message, dict) for message in messages)):
        return "has messages that are not a list of (role, content) objects"
    for message in messages:
        for key in ("role", "content"):
            if not isinstance(message.get(key), str | None):
                return f"has a {key} that is not text"
    return None


_READERS: Mapping[str, Callable[[Path], pl.DataFrame]] = MappingProxyType(
    {"parquet": _read_parquet, "jsonl": _read_jsonl}
)
"""Readers of the built-in formats by suffix."""
