"""Formats of datasets: which one a dataset has, and how its columns become messages."""

from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from gradsim.dataset.files import RowError, Rows
from gradsim.dataset.tokens import token_messages
from gradsim.errors import SampleError, enumerated
from gradsim.study.chat import LossOn
from gradsim.study.datasets import FORMAT_COLUMNS, MASKED_TOKENS, TEXT, TOKENS, DatasetLayout, FormatName

Message = dict[str, str | None]
Row = Mapping[str, Any]

SPEAKERS: Mapping[str, str] = MappingProxyType(
    {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "system": "system"}
)
"""Role of each speaker of the format `sharegpt`."""

# What belongs to a conversation, but not to its text.
_REFUSED_COLUMNS = ("functions", "history", "images", "system", "tools")
_REFUSED_KEYS = frozenset(
    {
        "audio",
        "function_call",
        "images",
        "reasoning",
        "reasoning_content",
        "thinking",
        "tool_call_id",
        "tool_calls",
    }
)


class Converted(NamedTuple):
    """A row in messages; their roles and texts are not checked yet."""

    identifier: str | None
    messages: list[Message] | None


def choose_format(rows: Rows, layout: DatasetLayout) -> FormatName:
    """Return the format of a dataset: the one that its layout names, or the only one that its columns fit.

    Raises:
        SampleError: a column is missing, or no format or several fit.
    """
    for column in layout.columns.values():
        if column not in rows.columns:
            raise _missing(rows, column)
    if layout.format:
        for column in FORMAT_COLUMNS[layout.format].required:
            if layout.columns.get(column, column) not in rows.columns:
                raise _missing(rows, column)
        return layout.format
    fitting = _fitting(layout, rows.filled) or _fitting(layout, rows.columns)
    if chats := [name for name in fitting if name not in (TEXT, TOKENS)]:
        fitting = chats  # a rendered text, or its tokens, often stand beside the conversation
    if len(fitting) == 1:
        return fitting[0]
    present = ", ".join(map(repr, rows.columns))
    if fitting:
        raise SampleError(
            f"{rows.source}: its columns fit the formats {enumerated(fitting, 'and')}; "
            "set `dataset.format` in the study file to one of them"
        )
    formats = "; ".join(f"{name}: {', '.join(each.required)}" for name, each in FORMAT_COLUMNS.items())
    raise SampleError(
        f"{rows.source}: its columns {present} fit no format ({formats}); "
        "set `dataset.format` and `dataset.columns` in the study file"
    )


def _fitting(layout: DatasetLayout, columns: Any) -> list[FormatName]:
    """Return the formats whose required columns are there and that have all mapped columns."""
    return [
        name
        for name, each in FORMAT_COLUMNS.items()
        if layout.columns.keys() <= set(each.names)
        and all(layout.columns.get(column, column) in columns for column in each.required)
    ]


def _missing(rows: Rows, column: str) -> SampleError:
    present = ", ".join(map(repr, rows.columns)) or "none"
    return SampleError(
        f"{rows.source}: has no column {column!r}, only {present}; "
        "fix `dataset.format` and `dataset.columns` in the study file"
    )


def convert(
    rows: Rows, format_name: FormatName, columns: Mapping[str, str], loss_on: LossOn, ignored: dict[str, None]
) -> Iterator[Converted]:
    """Yield the rows of a dataset as messages.

    Args:
        rows: The rows.
        format_name: Their format.
        columns: Name in the data by column of the format, where they differ.
        loss_on: Messages that the loss covers; others may have weight 0.
        ignored: Receives the names of the columns and message keys that are not used.

    Raises:
        SampleError: a row does not have the format, or has content that samples cannot hold.
    """
    names = {column: columns.get(column, column) for column in FORMAT_COLUMNS[format_name].names}
    used = {column: name for column, name in names.items() if name in rows.columns}
    refused = [name for name in _REFUSED_COLUMNS if name in rows.filled and name not in used.values()]
    ignored.update(dict.fromkeys(name for name in rows.columns if name not in {*used.values(), *refused}))
    converter = _CONVERTERS[format_name]
    for position, values in enumerate(rows.read([*dict.fromkeys(used.values()), *refused])):
        row = {column: values[name] for column, name in used.items()}
        try:
            for name in refused:
                if not _is_empty(values[name]):
                    raise RowError(f"has {name}, which samples cannot hold")
            converted = Converted(_identifier(row.get("id")), converter(row, ignored))
            for role, without_loss in _UNWEIGHTED.items():
                if _weightless(role) in ignored and loss_on not in without_loss:
                    raise RowError(f"has weight 0 in a {role} message, which `chat.loss_on: {loss_on}` covers")
            yield converted
        except RecursionError as error:
            raise SampleError(
                f"{rows.source}: {rows.place(position)} is nested too deeply; fix or remove it"
            ) from error
        except RowError as error:
            raise SampleError(f"{rows.source}: {rows.place(position)} {error}; fix or remove it") from error


_UNWEIGHTED: Mapping[str, tuple[LossOn, ...]] = MappingProxyType(
    {
        "system": ("last_answer", "all_answers"),
        "user": ("last_answer", "all_answers"),
        "assistant": ("last_answer",),  # but for the last one
    }
)
"""Choices of the loss that leave out messages of a role, so that their weight may be 0."""


def _weightless(role: str) -> str:
    return f"weight 0 of {role} messages"


def _messages(row: Row, ignored: dict[str, None]) -> list[Message] | None:
    return None if row["messages"] is None else _dialogue(row["messages"], "messages", ignored)


def _sharegpt(row: Row, ignored: dict[str, None]) -> list[Message] | None:
    if row["conversations"] is None:
        return None
    dialogue = _dialogue(row["conversations"], "conversations", ignored, "from", "value")
    for number, message in enumerate(dialogue, start=1):
        speaker = message["role"]
        if speaker is None:
            raise RowError(
                f"has no 'from' in message {number} (messages with role and content are the format messages)"
            )
        if speaker not in SPEAKERS:
            raise RowError(
                f"has the unknown speaker {speaker!r} in message {number}, not {enumerated([*SPEAKERS], 'or')}"
            )
        message["role"] = SPEAKERS[speaker]
    return dialogue


def _prompt_completion(row: Row, ignored: dict[str, None]) -> list[Message]:
    return [*_side(row, "prompt", "user", ignored), *_side(row, "completion", "assistant", ignored)]


def _side(row: Row, column: str, role: str, ignored: dict[str, None]) -> list[Message]:
    if isinstance(row[column], list):
        return _dialogue(row[column], column, ignored)
    return [{"role": role, "content": _required(row, column)}]


def _alpaca(row: Row, ignored: dict[str, None]) -> list[Message]:
    parts = [_required(row, "instruction"), *([] if row.get("input") is None else [_required(row, "input")])]
    return [
        {"role": "user", "content": "\n\n".join(part for part in parts if part.strip())},
        {"role": "assistant", "content": _required(row, "output")},
    ]


_CONVERTERS: Mapping[FormatName, Callable[[Row, dict[str, None]], list[Message] | None]] = MappingProxyType(
    {
        "messages": _messages,
        "sharegpt": _sharegpt,
        "prompt_completion": _prompt_completion,
        "alpaca": _alpaca,
        "text": lambda row, ignored: [{"role": TEXT, "content": _required(row, "text")}],
        "tokens": lambda row, ignored: token_messages(row),
    }
)
"""Functions from a row and the ignored names to messages."""


def _identifier(value: Any) -> str | None:
    if isinstance(value, bool) or not isinstance(value, str | int | None):
        raise RowError("has an id that is not text")
    return None if value is None else str(value)


def _required(row: Row, column: str) -> str:
    text = row[column]
    if text is None:
        raise RowError(f"has no {column}")
    if not isinstance(text, str):
        raise RowError(f"has {column} that is not text")
    return text


def _dialogue(
    value: Any, column: str, ignored: dict[str, None], role: str = "role", content: str = "content"
) -> list[Message]:
    """Return the messages of a list of objects with the keys `role` and `content`."""
    if not (isinstance(value, list) and all(isinstance(message, dict) for message in value)):
        raise RowError(f"has {column} that are not a list of ({role}, {content}) objects")
    found = [_message(message, number, ignored, role, content) for number, message in enumerate(value, start=1)]
    for number, (message, read) in enumerate(zip(value, found, strict=True), start=1):
        weight, speaker = message.get("weight"), SPEAKERS.get(read["role"] or "", "")
        if weight == 0 and speaker and not (speaker == "assistant" and number == len(found)):
            ignored[_weightless(speaker)] = None
        elif weight is not None and weight != 1:
            raise RowError(f"has weight {weight!r} in message {number}, but samples are trained on in full")
    return found


def _message(message: Mapping[str, Any], number: int, ignored: dict[str, None], role: str, content: str) -> Message:
    for key, value in message.items():
        if key in {role, content, "weight"} or _is_empty(value):
            continue
        if key in _REFUSED_KEYS:
            raise RowError(f"has {key} in message {number}, which samples cannot hold")
        ignored[f"{key} of messages"] = None
    if not isinstance(message.get(role), str | None):
        raise RowError(f"has a {role} in message {number} that is not text")
    if message.get(role) in (TEXT, TOKENS, MASKED_TOKENS):
        raise RowError(f"has the unknown role {message[role]!r} in message {number}")
    return {"role": message.get(role), "content": _content(message.get(content), f"{content} in message {number}")}


def _content(value: Any, place: str) -> str | None:
    """Return text, or the texts of a list of parts joined."""
    if isinstance(value, list):
        return "".join(_part(part, place) for part in value)
    if not isinstance(value, str | None):
        raise RowError(f"has a {place} that is not text")
    return value


def _part(part: Any, place: str) -> str:
    filled = {} if not isinstance(part, dict) else {key: value for key, value in part.items() if not _is_empty(value)}
    kind, text = filled.pop("type", None), filled.pop("text", "")
    if kind != "text" or not isinstance(text, str):
        raise RowError(f"has a part of the {place} that is not text but {kind!r}")
    if filled:
        raise RowError(f"has a part of the {place} with {', '.join(filled)}, which samples cannot hold")
    return text


def _is_empty(value: Any) -> bool:
    """Return whether a value holds nothing: null, empty, or only such values, as tables fill in for absent keys."""
    if isinstance(value, dict):
        value = list(value.values())
    return all(map(_is_empty, value)) if isinstance(value, list) else value is None or value == ""
