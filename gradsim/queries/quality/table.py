"""All faults of a setting's queries."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import polars as pl

from gradsim.queries.quality.registry import DEFAULT_BOUNDS, FAULTS, find_faults
from gradsim.queries.quality.rewrite import Rewrite
from gradsim.study.settings import LengthBounds

_Messages: TypeAlias = Sequence[Mapping[str, str | None]]

FAULT_TABLE = pl.Schema(
    {"id": pl.String(), "role": pl.String(), "fault": pl.String(), "original": pl.String(), "text": pl.String()}
)


def fault_table(
    originals: pl.DataFrame,
    queries: pl.DataFrame,
    bounds: LengthBounds = DEFAULT_BOUNDS,
    *,
    only: Mapping[str, Collection[str]] | None = None,
) -> pl.DataFrame:
    """Every fault of every rewritten message: a row each, in the order of queries, their messages, and `FAULTS`.

    Args:
        originals: columns `id` and `messages`; more than those of the queries may be there.
        queries: columns `id` and `messages`, and where it is known `finish_reasons`, one for each message. A message
            without content is empty.
        bounds: how much shorter or longer a text may be.
        only: role -> which faults are looked for in its messages: none in those of a role that is not named. None: all
            faults in all roles.

    Returns:
        A frame of `FAULT_TABLE`.

    Raises:
        ValueError: a query without an original, finish reasons that are not one for each message, or an unknown fault
            in `only`.
    """
    _check_names(only or {})
    messages_of = dict(_rows(originals, ("id", "messages")))
    columns = ("id", "messages", "finish_reasons") if "finish_reasons" in queries.columns else ("id", "messages")
    rows = [
        (identifier, rewrite.role, fault, rewrite.original, rewrite.text)
        for identifier, messages, *known in _rows(queries, columns)
        for rewrite in _rewrites(identifier, messages_of.get(identifier), messages, known[0] if known else None)
        if only is None or rewrite.role in only
        for fault in find_faults(rewrite, bounds)
        if only is None or fault in only[rewrite.role]
    ]
    return pl.DataFrame(rows, schema=FAULT_TABLE, orient="row")


def _check_names(only: Mapping[str, Collection[str]]) -> None:
    unknown = [fault for faults in only.values() for fault in faults if fault not in FAULTS]
    if unknown:
        raise ValueError(f"there is no fault {unknown[0]!r}, only {', '.join(FAULTS)}")


def _rows(frame: pl.DataFrame, columns: Sequence[str]) -> Iterator[tuple[Any, ...]]:
    return frame.select(pl.col("id").cast(pl.String), *columns[1:]).iter_rows()


def _rewrites(
    identifier: str, originals: _Messages | None, messages: _Messages, finish_reasons: Sequence[str | None] | None
) -> Iterator[Rewrite]:
    """Each message of a query beside that of its original which has the same role, where there is one."""
    if originals is None:
        raise ValueError(f"query {identifier!r} has no original")
    if finish_reasons is None:
        finish_reasons = [None] * len(messages)
    if len(finish_reasons) != len(messages):
        raise ValueError(f"query {identifier!r} has {len(messages)} messages, but {len(finish_reasons)} finish reasons")
    content_of = {message["role"]: message["content"] or "" for message in reversed(originals)}
    for message, finish_reason in zip(messages, finish_reasons, strict=True):
        if (original := content_of.get(message["role"])) is not None:
            answer = content_of.get("assistant", "")
            yield Rewrite(str(message["role"]), original, message["content"] or "", answer, finish_reason)
