"""Load samples from a file, and validate them: conversations that end with an answer, texts, or token ids.

Every frame of samples has the schema `SAMPLES_SCHEMA`. Loading only converts data to this schema; `validate` rejects
what a study cannot use (empty answers, unknown roles, conversations without an answer at the end).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from gradsim import dataset
from gradsim.dataset.files import Rows, read_file
from gradsim.dataset.formats import choose_format, convert
from gradsim.dataset.turns import kind_of
from gradsim.errors import SampleError
from gradsim.study.chat import LossOn
from gradsim.study.datasets import TEXT, TOKENS, DatasetLayout, FormatName

SAMPLES_SCHEMA = pl.Schema(
    {
        "id": pl.String(),
        "messages": pl.List(pl.Struct({"role": pl.String(), "content": pl.String()})),
    }
)

KNOWN_ROLES = ("system", "user", "assistant")


@dataclass(frozen=True)
class LoadedSamples:
    """Samples with what is known of the data that they come from.

    Attributes:
        frame: the samples.
        format: format of the data.
        ignored: columns and message keys of the data that samples do not hold.
    """

    frame: pl.DataFrame
    format: FormatName
    ignored: tuple[str, ...] = ()


def load_file(path: Path, loss_on: LossOn = "last_answer") -> pl.DataFrame:
    """Return the samples of a file or folder whose rows have ids, in the format that its columns fit.

    Raises:
        SampleError: as `load_original_file`; or there is no column `id`.
        TableError: a Parquet file cannot be read.
    """
    return samples_of(_read(path), DatasetLayout(), loss_on=loss_on).frame


def load_original_file(path: Path, layout: DatasetLayout, loss_on: LossOn = "last_answer") -> LoadedSamples:
    """Return the samples of a file or folder; without ids, they are called `row_0`, `row_1` and so on.

    Raises:
        SampleError: no such file, an unknown suffix, or a line, row or column that cannot hold samples.
        TableError: a Parquet file cannot be read.
    """
    # The name of the file is no part of the ids, since moving the data changes no table.
    return samples_of(_read(path), layout, "row", loss_on)


def _read(path: Path) -> Rows:
    return dataset.read_saved(path) if path.is_dir() else read_file(path)


def samples_of(
    rows: Rows, layout: DatasetLayout, unnamed: str | None = None, loss_on: LossOn = "last_answer"
) -> LoadedSamples:
    """Return rows as samples.

    Args:
        rows: Rows of a dataset.
        layout: Format, columns and rows that the study states.
        unnamed: Beginning of ids, before row numbers, in data without a column `id`; None requires the column.
        loss_on: Messages that the loss covers; others may have weight 0.

    Raises:
        SampleError: a row or column cannot hold samples.
    """
    if not rows.numbers:
        return LoadedSamples(SAMPLES_SCHEMA.to_frame(), layout.format or "messages")
    column = layout.columns.get("id", "id")
    named = column in rows.columns
    if not named and unnamed is None:
        raise SampleError(f"{rows.source}: has no column {column!r}; give every sample the id of its original")
    format_name, ignored = choose_format(rows, layout), dict[str, None]()
    if layout.single_turn and format_name in (TEXT, TOKENS):
        raise SampleError(f"{rows.source}: has no turns (format {format_name}); remove `dataset.single_turn`")
    converted = convert(rows, format_name, layout.columns, loss_on, ignored)
    samples = [
        (identifier if named else f"{unnamed}_{number}", messages)
        for number, (identifier, messages) in zip(rows.numbers, converted, strict=True)
    ]
    frame = pl.DataFrame(samples, schema=SAMPLES_SCHEMA, orient="row")
    if layout.single_turn:
        frame = frame.filter(pl.col("messages").list.len() == 2)
    return LoadedSamples(frame, format_name, tuple(ignored))


def validate(samples: pl.DataFrame, expected: int | None, source: str) -> pl.DataFrame:
    """Return the samples, or raise if any of them is invalid.

    Args:
        samples: Frame in `SAMPLES_SCHEMA`.
        expected: Number of samples stated by the study; None accepts any number but zero.
        source: Name of the data in error messages, such as its path.

    Raises:
        SampleError: A sample is invalid, or their number is; the message names the source and the first invalid sample.
    """
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
    match kind_of(messages):
        case "text":
            return None if (messages[0]["content"] or "").strip() else "has an empty text"
        case "tokens":
            return None
        case "conversations":
            return _fault_of_conversation(messages)


def _fault_of_conversation(messages: Sequence[Mapping[str, str | None]]) -> str | None:
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
