"""Faults of all queries of a setting."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import polars as pl

from gradsim.dataset.turns import last_turn
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
    """Return one row for each fault of each rewritten message, ordered by query, message and `FAULTS`.

    Args:
        originals: columns `id` and `messages`; may include originals without a query.
        queries: columns `id` and `messages`, optionally `finish_reasons` with one entry per message. A message without
            content counts as empty.
        bounds: allowed length ratios.
        only: faults to look for, by role; other roles are not checked. None: all faults in all roles.

    Returns:
        A frame of `FAULT_TABLE`.

    Raises:
        ValueError: a query has no original, the number of finish reasons is not the number of messages, or `only` names
            an unknown fault.
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
        raise ValueError(f"unknown fault {unknown[0]!r}; known faults: {', '.join(FAULTS)}")


def _rows(frame: pl.DataFrame, columns: Sequence[str]) -> Iterator[tuple[Any, ...]]:
    return frame.select(columns).iter_rows()


def _rewrites(
    identifier: str, originals: _Messages | None, messages: _Messages, finish_reasons: Sequence[str | None] | None
) -> Iterator[Rewrite]:
    """Yield the messages of a query's last turn with the original's last message of the same role, if there is one."""
    if originals is None:
        raise ValueError(f"query {identifier!r} has no original")
    if finish_reasons is None:
        finish_reasons = [None] * len(messages)
    if len(finish_reasons) != len(messages):
        raise ValueError(f"query {identifier!r} has {len(messages)} messages, but {len(finish_reasons)} finish reasons")
    content_of = {role: originals[place]["content"] or "" for role, place in last_turn(originals).items()}
    answer = content_of.get("assistant", "")
    for role, place in last_turn(messages).items():
        if role in content_of:
            yield Rewrite(role, content_of[role], messages[place]["content"] or "", answer, finish_reasons[place])
