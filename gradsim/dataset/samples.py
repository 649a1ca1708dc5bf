"""Samples: a user's message and an assistant's answer, read from a file or the Hub and checked.

Every frame of samples has the schema `SAMPLES_SCHEMA`. Reading only brings data into that shape; what a study refuses
(empty answers, unknown roles, more than one turn) is refused by `validate`.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import lazy_loader
import polars as pl

from gradsim.environment import extensions
from gradsim.errors import SampleError, TableError

datasets = lazy_loader.load("datasets")  # takes seconds, and most studies read files

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
    if suffix not in {"parquet", "jsonl", *added}:
        *others, last = [f".{name}" for name in ("parquet", "jsonl", *added)]
        raise SampleError(f"{path}: samples are read from {', '.join(others)} or {last} files; convert it")
    if not path.is_file():
        raise SampleError(f"{path}: no such file; mend the path in the study file")
    match suffix:
        case "parquet":
            return _read_parquet(path)
        case "jsonl":
            return _read_jsonl(path)
        case _:
            return _conform(added[suffix].load()(path), str(path))


def load_hub(
    name: str, split: str = "train", revision: str | None = None, where: Mapping[str, str] | None = None
) -> pl.DataFrame:
    """Loads samples from a dataset of the Hub, or from a local dataset folder.

    Args:
        name: the dataset's name on the Hub, or a folder.
        split: which split of it.
        revision: commit, tag or branch; the newest when None.
        where: only rows whose columns equal these values are kept.

    Returns:
        Samples in the dataset's order. Without a column `id`, a sample is called after the last part of `name` and
        its row number in the full split.

    Raises:
        SampleError: a dataset, split or column that is not there, or no row that `where` keeps.
    """
    try:
        dataset = datasets.load_dataset(name, split=split, revision=revision)
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        reason = str(error).splitlines()[0]
        raise SampleError(
            f"dataset {name}: cannot be loaded ({reason}); check its name, split and revision in the study file, "
            "the network, and HF_TOKEN if it is gated"
        ) from error
    for column in ("messages", *(where or {})):
        if column not in dataset.column_names:
            present = ", ".join(dataset.column_names)
            raise SampleError(f"dataset {name}: has no column {column!r}, only {present}; mend the study file")

    rows = _matching_rows(dataset, where or {})
    if where and not rows:
        condition = " and ".join(f"{column} == {value!r}" for column, value in where.items())
        raise SampleError(f"dataset {name}: no row has {condition}; mend `where` in the study file")
    columns = [column for column in ("id", "messages") if column in dataset.column_names]
    frame: pl.DataFrame = dataset.select(rows).select_columns(columns).to_polars()
    if "id" not in columns:
        prefix = name.rstrip("/").rsplit("/", maxsplit=1)[-1]
        frame = frame.with_columns(id=pl.Series([f"{prefix}_{row}" for row in rows], dtype=pl.String))
    return _conform(frame, f"dataset {name}")


def single_turn(samples: pl.DataFrame) -> pl.DataFrame:
    """The samples with exactly two messages."""
    return samples.filter(pl.col("messages").list.len() == 2)


def validate(samples: pl.DataFrame, expected: int | None, source: str) -> pl.DataFrame:
    """Refuses samples that no study can use; returns the others' frame in `SAMPLES_SCHEMA`.

    Args:
        samples: columns `id` and `messages`.
        expected: the number of samples that the study states; None: any but zero.
        source: what the messages call the data, such as its path.

    Raises:
        SampleError: naming the source and the first offending sample.
    """
    samples = _conform(samples, source)
    if samples.is_empty():
        raise SampleError(f"{source}: holds no samples; give at least one")
    _check_ids(samples["id"].to_list(), source)
    for identifier, messages in samples.iter_rows():
        fault = _fault(messages)
        if fault:
            raise SampleError(f"{source}: sample {identifier!r} {fault}; mend or remove it")
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
                f"{source}: rows {first_row[identifier]} and {row} bear the same id {identifier!r}; "
                "give every sample its own"
            )
        first_row[identifier] = row


def _fault(messages: Sequence[Mapping[str, str | None]] | None) -> str | None:
    """What is wrong with one sample's messages, or None."""
    if not messages:
        return "has no messages"
    for number, message in enumerate(messages, start=1):
        for key in ("role", "content"):
            if message[key] is None:
                return f"has no {key} in message {number}"
        if message["role"] not in KNOWN_ROLES:
            return f"has the unknown role {message['role']!r} in message {number}"
    roles = [message["role"] for message in messages]
    if roles != ["user", "assistant"]:
        return f"is not one user message and one assistant message but {', '.join(map(str, roles))}"
    for message, name in zip(messages, ("prompt", "answer"), strict=True):
        if not (message["content"] or "").strip():
            return f"has an empty {name}"
    return None


def _matching_rows(dataset: Any, where: Mapping[str, str]) -> list[int]:
    """Row numbers of a `datasets.Dataset` whose columns equal `where`; reads only those columns."""
    if not where:
        return list(range(dataset.num_rows))
    columns: pl.DataFrame = dataset.select_columns(list(where)).to_polars()
    matches = columns.select(
        pl.all_horizontal(pl.col(column).cast(pl.String) == value for column, value in where.items())
    )
    return matches.to_series().arg_true().to_list()


def _read_parquet(path: Path) -> pl.DataFrame:
    try:
        frame = pl.read_parquet(path)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise TableError(f"{path}: not a readable Parquet file; write or download it again") from error
    return _conform(frame, str(path))


def _conform(frame: pl.DataFrame, source: str) -> pl.DataFrame:
    """Brings `id` and `messages` to `SAMPLES_SCHEMA`; fields that a message lacks become null."""
    for column in SAMPLES_SCHEMA:
        if column not in frame.columns:
            raise SampleError(f"{source}: has no column {column!r}; samples are columns id and messages")
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
    """The names of a messages column's fields, or None where it cannot be one."""
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
            json.dumps(value, ensure_ascii=False).encode()  # a lone surrogate is JSON but not text
        except ValueError as error:
            raise SampleError(f"{path}: line {number} is not JSON text ({error}); mend or remove it") from error
        fault = _jsonl_fault(value)
        if fault:
            raise SampleError(f"{path}: line {number} {fault}; mend or remove it")
        identifier, messages = value.get("id"), value.get("messages")
        yield (
            None if identifier is None else str(identifier),
            None
            if messages is None
            else [{"role": message.get("role"), "content": message.get("content")} for message in messages],
        )


def _jsonl_fault(value: Any) -> str | None:
    """Why a line's value cannot hold a sample, or None; what is only missing is `validate`'s to refuse."""
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
