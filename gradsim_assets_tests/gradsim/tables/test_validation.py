from collections.abc import Callable
from math import inf, nan

import polars as pl
import pytest

from gradsim.tables import Provenance, Store
from gradsim.tables.lineage import GRADIENT_TABLES, INDEX
from gradsim.tables.provenance import ORIGINAL_LOSS, QUERY_LOSS
from gradsim.tables.validation import CHECKS, validate

FIRST, LAST = "0000-0001", "0002-0003"
# The index is no table of rows: test_index.py.
TABLES = [table for table in CHECKS if table != INDEX]
Change = Callable[[pl.DataFrame], pl.DataFrame]


def faults(store: Store, table: str, partition: str = FIRST) -> dict[str, str]:
    found = validate(store, store.lineage.key(table, "paraphrased"), partition)
    assert tuple(found) == CHECKS[table]
    return {name: fault for name, fault in found.items() if fault}


def damage(store: Store, table: str, change: Change, **known: object) -> dict[str, str]:
    """What is found of a table's first partition after a change."""
    key = store.lineage.key(table, "paraphrased")
    store.write(key, change(store.read(key, [FIRST])), FIRST, Provenance.model_validate(known))
    return faults(store, table)


def first(column: str, value: object) -> Change:
    """Puts a value into a column's first row."""
    return lambda rows: rows.with_columns(
        pl.when(pl.int_range(pl.len()) == 0)
        .then(pl.lit(value))
        .otherwise(pl.col(column))
        .cast(rows.schema[column])
        .alias(column)
    )


@pytest.mark.parametrize("partition", [FIRST, LAST])
@pytest.mark.parametrize("table", TABLES)
def test_good_tables_pass(filled: Store, table: str, partition: str) -> None:
    assert faults(filled, table, partition) == {}


GRADIENT_TABLES_OF_QUERIES = [table for table in GRADIENT_TABLES if not table.endswith("original_self")]
NUMBERS = {
    "candidates": "score",
    "dot_products": "dot",
    "query_self": "self_dot",
    "original_self": "self_dot",
    "gradient_similarity": "similarity",
    "projected_similarity": "similarity",
    "projected_dots": "dot",
    "projected_query_self": "self_dot",
    "projected_original_self": "self_dot",
}
ROWS = {
    "queries": 2, "tokenized": 2, "candidates": 4, "dot_products": 8, "query_self": 4, "original_self": 6,
    "gradient_similarity": 4, "projected_similarity": 4, "projected_dots": 8, "projected_query_self": 4,
    "projected_original_self": 6,
}  # fmt: skip


@pytest.mark.parametrize("table", TABLES)
def test_a_missing_row(filled: Store, table: str) -> None:
    expected = ROWS[table]
    assert damage(filled, table, lambda rows: rows[:-1])["rows_complete"] == f"{expected - 1} rows, expected {expected}"


@pytest.mark.parametrize("table", TABLES)
def test_a_row_too_many(filled: Store, table: str) -> None:
    expected = ROWS[table]
    found = damage(filled, table, lambda rows: pl.concat([rows, rows[:1]]))
    assert found == {"rows_complete": f"{expected + 1} rows, expected {expected}"}


@pytest.mark.parametrize("table", [table for table in TABLES if not table.endswith("original_self")])
def test_a_sample_of_another_partition(filled: Store, table: str) -> None:
    column = "id" if table in {"queries", "tokenized"} else "query_id"
    assert damage(filled, table, first(column, "d"))["ids_known"] == f"{column} 'd' is not in the partition"


@pytest.mark.parametrize(
    "table",
    [
        "candidates",
        "dot_products",
        "original_self",
        "gradient_similarity",
        "projected_similarity",
        "projected_dots",
        "projected_original_self",
    ],
)
def test_an_original_that_is_no_candidate(filled: Store, table: str) -> None:
    """It was excluded when the originals were tokenized."""
    key = filled.lineage.key("tokenized")
    later = [filled.lineage.key(name, "paraphrased") for name in TABLES]
    rows = {each: filled.read(each, [FIRST]) for each in later}
    filled.write(key, filled.read(key).filter(pl.col("id") != "c"))
    for each in later:
        filled.write(each, rows[each], FIRST)
    assert faults(filled, table)["ids_known"] == "original_id 'c' is not one of the originals"


@pytest.mark.parametrize("value", [nan, inf, -inf, None])
@pytest.mark.parametrize("table", NUMBERS)
def test_a_number_that_is_none(filled: Store, table: str, value: float | None) -> None:
    column = NUMBERS[table]
    assert (
        damage(filled, table, first(column, value))["values_finite"]
        == f"1 values of {column} are missing or not finite"
    )


@pytest.mark.parametrize("table", ["gradient_similarity", "projected_similarity"])
def test_cosines(filled: Store, table: str) -> None:
    for value in (1.1, -1.1, 1 + 2e-6):
        assert damage(filled, table, first("similarity", value)) == {
            "cosines_possible": "1 similarities are outside [-1, 1]"
        }
    for value in (1.0, -1.0, 0.0, 1 + 1e-7):
        assert damage(filled, table, first("similarity", value)) == {}


@pytest.mark.parametrize("table", ["query_self", "original_self", "projected_query_self", "projected_original_self"])
class TestSelfDots:
    def test_negative(self, filled: Store, table: str) -> None:
        assert damage(filled, table, first("self_dot", -1e-12)) == {"self_dots_positive": "1 self dots are negative"}

    def test_a_gradient_of_zero(self, filled: Store, table: str) -> None:
        def zero(rows: pl.DataFrame) -> pl.DataFrame:
            sample = pl.col("^(query|original)_id$")
            return rows.with_columns(pl.when(sample == "b").then(0.0).otherwise("self_dot").alias("self_dot"))

        assert damage(filled, table, zero) == {"self_dots_positive": "1 gradients are zero in every layer"}

    def test_zero_in_one_layer_is_an_expert_that_was_never_routed_to(self, filled: Store, table: str) -> None:
        assert damage(filled, table, first("self_dot", 0.0)) == {}


def test_a_query_without_its_source(filled: Store) -> None:
    found = damage(filled, "candidates", first("original_id", "d"))
    assert found == {"source_among_candidates": "1 queries lack their source among the candidates"}


class TestExclusions:
    """Samples that were left out for a stated reason are not missing."""

    def test_queries_that_could_not_be_made(self, filled: Store) -> None:
        without: Change = lambda rows: rows.filter(pl.col("id") != "b")  # noqa: E731
        assert damage(filled, "queries", without, excluded={"b": "no room"}) == {}
        assert damage(filled, "queries", without) == {"rows_complete": "1 rows, expected 2"}

    def test_queries_that_are_too_long(self, filled: Store) -> None:
        without: Change = lambda rows: rows.filter(pl.col("id") != "b")  # noqa: E731
        assert damage(filled, "tokenized", without, excluded={"b": "too long"}) == {}

    @pytest.mark.parametrize("table", [*GRADIENT_TABLES_OF_QUERIES])
    def test_a_query_with_a_bad_loss(self, filled: Store, table: str) -> None:
        without: Change = lambda rows: rows.filter(pl.col("query_id") != "b")  # noqa: E731
        assert damage(filled, table, without, excluded={"b": QUERY_LOSS}) == {}
        assert "rows_complete" in damage(filled, table, without)

    def test_originals_of_the_queries_that_are_left(self, filled: Store) -> None:
        without: Change = lambda rows: rows.filter(pl.col("original_id") != "c")  # noqa: E731
        assert damage(filled, "original_self", without, excluded={"b": QUERY_LOSS}) == {}

    def test_an_original_with_a_bad_loss(self, filled: Store) -> None:
        """`b` is the second candidate of `a`, and the source of the query `b`, which goes with it."""
        without: Change = lambda rows: rows.filter(pl.col("query_id") == "a", pl.col("original_id") != "b")  # noqa: E731
        assert damage(filled, "gradient_similarity", without, excluded={"b": ORIGINAL_LOSS}) == {}

    def test_a_partition_without_a_query(self, filled: Store) -> None:
        nothing: Change = lambda rows: rows.clear()  # noqa: E731
        excluded = {"a": QUERY_LOSS, "b": QUERY_LOSS}
        assert damage(filled, "original_self", nothing, excluded=excluded) == {}
        assert damage(filled, "query_self", nothing, excluded=excluded) == {}


def test_more_candidates_than_originals(filled: Store, make_study: Callable) -> None:
    """Fewer originals than `top_k`: all of them are candidates."""
    key = filled.lineage.key("candidates", "paraphrased")
    rows = filled.read(key, [LAST])
    for top_k in (9, "all"):
        store = Store(filled.root, make_study(top_k=top_k))
        store.write(key, rows, LAST)
        assert validate(store, key, LAST)["rows_complete"] == "4 rows, expected 8"


@pytest.mark.parametrize("table", ["dot_products", "projected_similarity", "queries"])
def test_a_row_that_stands_twice_does_not_make_up_for_a_missing_one(filled: Store, table: str) -> None:
    found = damage(filled, table, lambda rows: pl.concat([rows.head(1), rows.head(rows.height - 1)]))
    assert found["rows_complete"] == "1 duplicate rows"


@pytest.mark.usefixtures("tiny_blocks")
class TestLargeTables:
    """They are looked at a few rows at a time."""

    @pytest.mark.parametrize("table", TABLES)
    def test_good_tables_pass(self, filled: Store, table: str) -> None:
        assert faults(filled, table) == {}

    @pytest.mark.parametrize("row", range(8))
    def test_a_row_that_stands_twice(self, filled: Store, row: int) -> None:
        other: Change = lambda rows: pl.concat([rows[: row + 1], rows[row:]]).head(8)  # noqa: E731
        expected = {} if row == 7 else {"rows_complete": "1 duplicate rows"}
        assert damage(filled, "dot_products", other) == expected

    def test_a_query_whose_rows_do_not_stand_together(self, filled: Store) -> None:
        apart: Change = lambda rows: pl.concat([rows[:2], rows[4:], rows[2:4]])  # noqa: E731
        assert damage(filled, "dot_products", apart) == {"rows_complete": "rows of 1 samples are not contiguous"}
