from typing import Any

import polars as pl
import pytest

from gradsim.dataset.samples import SAMPLES_SCHEMA
from gradsim.queries.quality import FAULT_TABLE, FAULTS, fault_table
from gradsim.study.settings import LengthBounds

PROMPT, ANSWER = "Where do swifts sleep in summer?", "On the wing: they glide through the night, high above the towns."
REWORDED = "In what place do swifts spend summer nights?"
ALSO_REWORDED = "They sleep while flying, gliding above towns all night long."


def frame(rows: dict[str, tuple[str | None, str | None]], finish_reasons: Any = None) -> pl.DataFrame:
    messages = [
        (identifier, [{"role": "user", "content": prompt}, {"role": "assistant", "content": answer}])
        for identifier, (prompt, answer) in rows.items()
    ]
    samples = pl.DataFrame(messages, schema=SAMPLES_SCHEMA, orient="row")
    if finish_reasons is None:
        return samples
    return samples.with_columns(pl.Series("finish_reasons", finish_reasons, dtype=pl.List(pl.String())))


ORIGINALS = frame(dict.fromkeys("abc", (PROMPT, ANSWER)))


def found(*arguments: Any, **keywords: Any) -> list[tuple[str, str, str]]:
    return fault_table(*arguments, **keywords).select("id", "role", "fault").rows()


def test_a_row_each_in_the_order_of_queries_messages_and_faults() -> None:
    queries = frame({"c": (ANSWER, ""), "a": (REWORDED, ALSO_REWORDED), "b": (PROMPT.upper(), "Sleep.")})
    table = fault_table(ORIGINALS, queries)
    assert table.schema == FAULT_TABLE
    assert table.rows() == [
        ("c", "user", "executed", PROMPT, ANSWER),
        ("c", "assistant", "empty", ANSWER, ""),
        ("b", "user", "unchanged", PROMPT, PROMPT.upper()),
        ("b", "assistant", "length", ANSWER, "Sleep."),
    ]


def test_no_faults_and_no_queries_leave_an_empty_table() -> None:
    assert fault_table(ORIGINALS, frame({"a": (REWORDED, ALSO_REWORDED)})).equals(FAULT_TABLE.to_frame())
    assert fault_table(ORIGINALS, frame({})).equals(FAULT_TABLE.to_frame())


@pytest.mark.parametrize(
    ("finish_reasons", "expected"),
    [
        ([["length", "stop"]], [("a", "user", "truncated")]),
        ([["stop", "content_filter"]], [("a", "assistant", "truncated")]),
        ([["stop", None]], []),
        ([[None, None]], []),
        ([None], []),
    ],
)
def test_finish_reasons_are_those_of_the_messages(finish_reasons: Any, expected: list[tuple[str, str, str]]) -> None:
    assert found(ORIGINALS, frame({"a": (REWORDED, ALSO_REWORDED)}, finish_reasons)) == expected


def test_only_what_makes_sense_for_a_role_is_looked_for() -> None:
    queries = frame({"a": (PROMPT, ""), "b": ("", ANSWER)})
    assert found(ORIGINALS, queries) == [
        ("a", "user", "unchanged"),
        ("a", "assistant", "empty"),
        ("b", "user", "empty"),
        ("b", "assistant", "unchanged"),
    ]
    assert found(ORIGINALS, queries, only={"user": ["empty"], "assistant": ()}) == [("b", "user", "empty")]
    assert found(ORIGINALS, queries, only={"assistant": {"empty"}}) == [("a", "assistant", "empty")]
    assert found(ORIGINALS, queries, only={"user": FAULTS, "assistant": FAULTS}) == found(ORIGINALS, queries)


def test_bounds_are_the_callers() -> None:
    queries = frame({"a": (REWORDED, ALSO_REWORDED)})
    assert found(ORIGINALS, queries, LengthBounds(least=1, most=1)) == [
        ("a", "user", "length"),
        ("a", "assistant", "length"),
    ]


def test_ids_may_be_encoded() -> None:
    queries = frame({"b": (PROMPT, ALSO_REWORDED)})
    encode = pl.col("id").cast(pl.Enum(["b", "a", "c"]))
    encoded = fault_table(ORIGINALS.with_columns(encode), queries.with_columns(encode))
    assert encoded.equals(fault_table(ORIGINALS, queries))


def test_a_message_without_content_is_empty() -> None:
    assert found(ORIGINALS, frame({"a": (None, ALSO_REWORDED)})) == [("a", "user", "empty")]


def test_messages_are_looked_at_beside_those_of_the_same_role() -> None:
    queries = frame({"a": (PROMPT, ALSO_REWORDED)})
    assert found(ORIGINALS, queries.with_columns(pl.col("messages").list.reverse())) == [("a", "user", "unchanged")]
    told = pl.DataFrame([{"role": "system", "content": PROMPT}]).to_struct().implode()
    with_system = queries.with_columns(pl.lit(told).list.concat(pl.col("messages")).alias("messages"))
    assert found(ORIGINALS, with_system) == [("a", "user", "unchanged")], "a message that its original does not have"


@pytest.mark.parametrize(
    ("queries", "only", "message"),
    [
        (frame({"z": (REWORDED, ALSO_REWORDED)}), None, "query 'z' has no original"),
        (frame({"a": (REWORDED, ALSO_REWORDED)}, [["stop"]]), None, "query 'a' has 2 messages, but 1 finish reasons"),
        (frame({}), {"user": ["dull"]}, "unknown fault 'dull'; known faults: empty, truncated"),
    ],
)
def test_refusal(queries: pl.DataFrame, only: Any, message: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - its message is looked at below
        fault_table(ORIGINALS, queries, only=only)
    assert str(caught.value).startswith(message)
