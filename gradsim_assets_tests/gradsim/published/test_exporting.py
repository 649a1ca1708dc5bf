"""A study's tables as published results: all of them, fresh, or nothing."""

from pathlib import Path

import polars as pl
import pytest

from gradsim.errors import StudyError, TableError
from gradsim.published import export_published, store_published
from gradsim.tables import Store
from gradsim_assets_tests.gradsim.published.tiny import Layout


@pytest.fixture
def store(layout: Layout, tmp_path: Path) -> Store:
    layout.write()
    return store_published(layout.read(), tmp_path / "data", "study").store


def files_below(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_what_was_imported_is_exported(store: Store, layout: Layout, tmp_path: Path) -> None:
    paths, left_out = export_published(store, tmp_path / "out")
    written = files_below(tmp_path / "out")
    computed = "data/gradient_similarity/model_generated/org/model/sample_size_full.json"
    assert written.keys() - files_below(layout.root).keys() == {computed}
    assert all(written[name] == content for name, content in files_below(layout.root).items())
    assert {tmp_path / "out" / name for name in written} == set(paths)
    assert left_out == []
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["data", "results"]


def test_two_projections_to_two_dimensions_of_two_partitions(store: Store, layout: Layout, tmp_path: Path) -> None:
    """Combined tables have a partition after the other; of each dimension the first projection is written."""
    key = store.lineage.key("projected_similarity", "paraphrased", "results")
    rows = store.read(key)
    rows = pl.concat([rows, rows.with_columns(projection=pl.lit("sjlt"), similarity=0.0)])
    first = rows["query_id"].cast(pl.String).is_in(["s0", "s1"])
    store.write(key, pl.concat([rows.filter(first), rows.filter(~first)]))
    _, left_out = export_published(store, tmp_path / "out")
    name = "data/gradient_similarity/random_projection/paraphrased/org/model/sample_size_full.json"
    assert (tmp_path / "out" / name).read_bytes() == (layout.root / name).read_bytes()
    assert left_out == [
        f"paraphrased: sjlt, because another projection also has {dimension} dimensions" for dimension in (64, 8)
    ]


@pytest.mark.parametrize("state", ["missing", "stale", "corrupt"])
def test_tables_that_are_not_fresh_are_refused(store: Store, tmp_path: Path, state: str) -> None:
    key = store.lineage.key("query_self", "model_generated", "results")
    path = store.path(key)
    if state == "missing":
        path.unlink()
    elif state == "stale":
        path.write_bytes(store.path(store.lineage.key("query_self", "paraphrased", "results")).read_bytes())
    else:
        path.write_bytes(b"PAR1")
    with pytest.raises(TableError, match=rf"query_self.parquet: {state}, .*; import the results again"):
        export_published(store, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_failed_export_leaves_nothing_and_does_not_block_the_next(store: Store, tmp_path: Path) -> None:
    key = store.lineage.key("query_self", "model_generated", "results")
    rows = store.read(key)
    store.write(key, rows.with_columns(self_dot=pl.lit(None, pl.Float64)))
    with pytest.raises(TableError, match="values of self_dot are missing"):
        export_published(store, tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []
    store.write(key, rows)
    export_published(store, tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["data", "results"]


def test_both_folders_take_their_places_or_none(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rename = Path.rename

    def failing(path: Path, target: Path) -> Path:
        if target == tmp_path / "out/results":
            raise OSError(5, "Input/output error")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", failing)
    with pytest.raises(StudyError, match=r"out: cannot be written \(Input/output error\); choose another folder"):
        export_published(store, tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


def test_what_a_killed_export_left_is_removed(store: Store, tmp_path: Path) -> None:
    (tmp_path / "out/.exporting.1-abc/data").mkdir(parents=True)
    export_published(store, tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["data", "results"]


@pytest.mark.parametrize("taken", ["data", "results"])
def test_results_that_are_there_are_left_alone(store: Store, tmp_path: Path, taken: str) -> None:
    (tmp_path / "out" / taken).mkdir(parents=True)
    with pytest.raises(StudyError, match=f"out/{taken}: already exists"):
        export_published(store, tmp_path / "out")


def test_a_folder_that_cannot_be_made(store: Store, tmp_path: Path) -> None:
    (tmp_path / "out").touch()
    with pytest.raises(StudyError, match=r"out: cannot be written .*; choose another folder"):
        export_published(store, tmp_path / "out")
