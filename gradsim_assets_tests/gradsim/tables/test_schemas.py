from collections.abc import Callable

import polars as pl
import pytest

from gradsim.errors import TableError
from gradsim.study import Study
from gradsim.tables import SCHEMAS, Lineage
from gradsim.tables.schemas import IDENTIFIER, IDENTIFIERS
from gradsim.tables.validation import CHECK, CHECKS


def test_every_stored_table_has_a_schema(make_study: Callable[..., Study]) -> None:
    study = make_study(projections=[{"share": 0.01, "store_projected": True}], layers={"exclude": ["*bias"]})
    stored = {node.key.name for node in Lineage(study)} - {"report"}
    assert stored == set(SCHEMAS)


def test_every_partitioned_table_is_checked(make_study: Callable[..., Study]) -> None:
    study = make_study(projections=[{"share": 0.01, "store_projected": True}])
    assert {node.key.name for node in Lineage(study) if node.partitioned} == set(CHECKS)
    assert {name for names in CHECKS.values() for name in names} == set(CHECK)


def test_columns_are_documented_and_identifiers_encoded() -> None:
    for name, schema in SCHEMAS.items():
        assert schema.description.endswith("."), name
        assert all(column.description for column in schema.columns.values()), name
        encoded = {column for column, known in schema.columns.items() if known.dtype is IDENTIFIER}
        assert encoded == IDENTIFIERS & set(schema.columns), name


def test_conform_orders_columns_and_drops_others() -> None:
    columns = {"extra": [1], "noise": [False], "loss": [2.0], "self_dot": [1.0], "layer": ["w"], "query_id": ["a"]}
    frame = pl.DataFrame(columns).with_columns(pl.col("layer", "query_id").cast(pl.Enum(["a", "w"])))
    assert SCHEMAS["query_self"].conform(frame, "x").columns == ["query_id", "layer", "self_dot", "loss", "noise"]


def test_a_missing_column() -> None:
    with pytest.raises(TableError) as caught:
        SCHEMAS["query_self"].conform(pl.DataFrame({"query_id": ["a"], "self_dot": [1.0]}), "mine/query_self")
    assert str(caught.value) == "table mine/query_self: column 'layer' is missing; it has query_id, self_dot"


def test_a_column_of_another_type() -> None:
    frame = SCHEMAS["samples"].empty().with_columns(pl.col("id").cast(pl.Enum([])), messages=pl.lit("text"))
    with pytest.raises(TableError) as caught:
        SCHEMAS["samples"].conform(frame, "mine/samples")
    expected = "List(Struct({'role': String, 'content': String}))"
    assert str(caught.value) == f"table mine/samples: column 'messages' is String, not {expected}"
