"""How far a study is, by its stored files; the overview of all studies is tested where notebooks show it."""

import os
from pathlib import Path

import polars as pl
import pytest

from gradsim.tables import SCHEMAS, Store
from gradsim.tables.overview import progress
from gradsim_assets_tests.studies import two_partitions


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A study of one setting in two partitions, before anything is computed."""
    return Store(tmp_path / "data root", two_partitions(tmp_path))


def fill(store: Store, *partitions: str) -> None:
    """Write all tables without rows, but only these partitions; without the others nothing combined, either."""
    complete = len(partitions) == 2
    for node in store.lineage:
        if node.key.name == "report":
            if complete:
                store.write_report("")
        elif node.partitioned:
            for partition in partitions:
                store.write(node.key, SCHEMAS[node.key.name].empty(), partition)
        elif complete or all(store.path(source).exists() for source in node.inputs):
            rows = SCHEMAS[node.key.name].empty()
            if node.key.name == "samples":
                rows = rows.clear(4).with_columns(pl.Series("id", list("abcd")))
            store.write(node.key, rows)


def test_nothing_is_stored(store: Store) -> None:
    assert progress(store) == "not begun"


def test_some_partitions(store: Store) -> None:
    fill(store, "0002-0003")
    assert progress(store) == "1 of 2 partitions"


def test_a_partition_without_one_of_its_tables_does_not_count(store: Store) -> None:
    fill(store, "0000-0001", "0002-0003")
    store.path(store.lineage.key("query_self", "dropped"), "0000-0001").unlink()
    assert progress(store) == "1 of 2 partitions"


def test_everything(store: Store) -> None:
    fill(store, "0000-0001", "0002-0003")
    assert progress(store) == "finished"


def test_partitions_of_another_definition_do_not_count(store: Store) -> None:
    fill(store, "0000-0001", "0002-0003")
    changed = Store(store.root, store.study.model_copy(update={"seed": 7, "top_k": 3}))
    assert progress(changed) == "0 of 2 partitions"


def test_without_a_report(store: Store) -> None:
    fill(store, "0000-0001", "0002-0003")
    store.path(store.lineage.key("report")).unlink()
    assert progress(store) == "2 of 2 partitions, report missing"


def test_a_partition_that_the_report_lacks(store: Store) -> None:
    """The report's direct inputs have not changed."""
    fill(store, "0000-0001", "0002-0003")
    key = store.lineage.key("query_self", "dropped")
    rows = SCHEMAS["query_self"].empty()
    rows = rows.clear(1).with_columns(pl.Series("query_id", ["a"]), pl.Series("layer", [None], pl.String))
    store.write(key, rows.with_columns(pl.col("query_id").cast(store.ids)), "0000-0001")
    assert progress(store) == "2 of 2 partitions, report stale"


def test_a_partition_that_was_computed_again_and_is_the_same(store: Store) -> None:
    fill(store, "0000-0001", "0002-0003")
    path = store.path(store.lineage.key("query_self", "dropped"), "0000-0001")
    os.utime(path, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns + 10**12))
    assert progress(store) == "finished"
