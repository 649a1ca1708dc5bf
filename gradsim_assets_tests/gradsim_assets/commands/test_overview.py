"""`gradsim list`: each study on its own line, with how far it is, and the errors of those that are not valid."""

import os
import re
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

from gradsim.tables import SCHEMAS, Store
from gradsim.tables.overview import progress
from gradsim_assets.commands.overview import print_studies
from gradsim_assets.terminal import console
from gradsim_assets_tests.studies import two_partitions
from gradsim_assets_tests.workplace import Workplace


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


class TestProgress:
    def test_nothing_is_stored(self, store: Store) -> None:
        assert progress(store) == "not begun"

    def test_some_partitions(self, store: Store) -> None:
        fill(store, "0002-0003")
        assert progress(store) == "1 of 2 partitions"

    def test_a_partition_without_one_of_its_tables_does_not_count(self, store: Store) -> None:
        fill(store, "0000-0001", "0002-0003")
        store.path(store.lineage.key("query_self", "dropped"), "0000-0001").unlink()
        assert progress(store) == "1 of 2 partitions"

    def test_everything(self, store: Store) -> None:
        fill(store, "0000-0001", "0002-0003")
        assert progress(store) == "finished"

    def test_partitions_of_another_definition_do_not_count(self, store: Store) -> None:
        fill(store, "0000-0001", "0002-0003")
        changed = Store(store.root, store.study.model_copy(update={"seed": 7, "top_k": 3}))
        assert progress(changed) == "0 of 2 partitions"

    def test_without_a_report(self, store: Store) -> None:
        fill(store, "0000-0001", "0002-0003")
        store.path(store.lineage.key("report")).unlink()
        assert progress(store) == "2 of 2 partitions, report missing"

    def test_a_partition_that_the_report_lacks(self, store: Store) -> None:
        """The report's direct inputs have not changed."""
        fill(store, "0000-0001", "0002-0003")
        key = store.lineage.key("query_self", "dropped")
        rows = SCHEMAS["query_self"].empty()
        rows = rows.clear(1).with_columns(pl.Series("query_id", ["a"]), pl.Series("layer", [None], pl.String))
        store.write(key, rows.with_columns(pl.col("query_id").cast(store.ids)), "0000-0001")
        assert progress(store) == "2 of 2 partitions, report stale"

    def test_a_partition_that_was_computed_again_and_is_the_same(self, store: Store) -> None:
        fill(store, "0000-0001", "0002-0003")
        path = store.path(store.lineage.key("query_self", "dropped"), "0000-0001")
        os.utime(path, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns + 10**12))
        assert progress(store) == "finished"


@pytest.mark.parametrize("width", [80, 200])
def test_the_studies_of_a_folder(
    workplace: Workplace, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    workplace.write_study(
        "large_" + "a" * 40,
        settings={name: {"method": "word_dropout"} for name in ("a_long_name", "b", "c", "d")},
        description="All about [everything]",
    )
    workplace.write_study("wrong", top_K=3)
    workplace.write_study("incomplete")
    store = workplace.store("incomplete")
    path = store.path(store.lineage.key("candidates", "word_dropout"), "0000-0006")
    path.parent.mkdir(parents=True)
    path.write_bytes(b"half")
    for name, value in workplace.variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(console, "width", width)
    print_studies()
    lines = capsys.readouterr().out.splitlines()
    *rows, first, second = lines
    assert max(map(len, rows)) <= width
    text = "".join(word for row in rows for word in row.split())
    for part in ("large_", "a_long_name,", "[everything]", "not"):
        assert part in text
    assert first.startswith(f"incomplete: {path}: not a readable table")
    assert second == f"wrong: {workplace.studies / 'wrong.yaml'}: unknown key 'top_K'; did you mean 'top_k'?"
    if width == 200:
        cells = [re.split(r"  +", row.strip()) for row in rows if row.startswith((" tiny", " large", " incomplete"))]
        assert [state for _, state, *_ in cells] == ["unknown", "not begun", "not begun"]


def test_a_folder_without_studies(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GRADSIM_STUDIES", str(tmp_path))
    monkeypatch.setenv("GRADSIM_DATA", str(tmp_path / "data"))
    print_studies()
    said = capsys.readouterr().out
    assert said == f"no study in {tmp_path}; write one: gradsim init NAME --data FILE --model NAME\n"


def test_nothing_heavy_is_loaded(workplace: Workplace, project: Path) -> None:
    code = (
        "import sys; from gradsim_assets.commands import print_studies; print_studies();"
        "print({'torch', 'transformers', 'datasets', 'dagster', 'matplotlib'} & sys.modules.keys())"
    )
    said = subprocess.run(
        [sys.executable, "-c", code], cwd=project, env=workplace.variables, capture_output=True, text=True, check=True
    ).stdout
    assert "not begun" in said
    assert said.splitlines()[-1] == "set()"
