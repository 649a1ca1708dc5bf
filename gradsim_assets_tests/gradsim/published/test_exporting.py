"""Export of a study's tables, and the JSON files it writes."""

import json
import math
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradsim.errors import StudyError, TableError
from gradsim.published import (
    Published,
    export_published,
    find_published,
    read_published,
    store_published,
    write_published,
)
from gradsim.tables import Store
from gradsim.tables.writing import write_table
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
    """Combined tables are grouped by partition; only the first projection to each dimension is written."""
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
        write_table(store.read(key), path, store.provenance(key).model_copy(update={"fingerprint": "another"}))
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


def export(published: Published, folder: Path, **changes: Any) -> list[Path]:
    """Write all settings."""
    return [
        path
        for setting, tables in published.settings.items()
        for path in write_published(
            folder,
            **{
                "model": published.model,
                "sample_size": published.sample_size,
                "setting": setting,
                **{name: frame for name, frame in tables.items() if name != "candidates"},
                **changes,
            },
        )
    ]


def test_what_was_read_is_written_byte_for_byte(layout: Layout, tmp_path: Path) -> None:
    layout.write()
    paths = export(layout.read(), tmp_path / "out")
    written = files_below(tmp_path / "out")
    assert written == files_below(layout.root / "data")
    assert {tmp_path / "out" / path for path in written} == set(paths)


def test_writing_again_replaces(single: Layout, tmp_path: Path) -> None:
    single.write()
    export(single.read(), tmp_path / "out")
    single.tables["query_self"]["s0"]["head"] = 7.0
    single.write()
    export(single.read(), tmp_path / "out")
    assert files_below(tmp_path / "out") == files_below(single.root / "data")


NORMS = st.floats(0, 1e150)
COSINES = st.floats(-1, 1)


@st.composite
def layouts(draw: st.DrawFn) -> dict[str, Any]:
    """Draw a setting's tables with arbitrary names and numbers, and originals in the order of the writer."""
    names = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
    queries = draw(st.lists(names, min_size=1, max_size=4, unique=True))
    others = draw(st.lists(names.filter(lambda name: name not in queries), max_size=3, unique=True))
    layers = draw(st.lists(names, min_size=1, max_size=4, unique=True))
    chosen = st.lists(st.sampled_from([*queries, *others]), unique=True)
    lists = {query: draw(st.permutations([*dict.fromkeys([query, *draw(chosen)])])) for query in queries}
    originals = [*queries, *dict.fromkeys(each for query in queries for each in lists[query] if each not in queries)]

    norms = {
        (side, sample, layer): draw(NORMS)
        for side, samples in (("query", queries), ("original", originals))
        for sample in samples
        for layer in layers
    }

    def self_dots(side: str, samples: list[str]) -> dict[str, dict[str, float]]:
        return {sample: {layer: norms[side, sample, layer] ** 2 for layer in layers} for sample in samples}

    def dots(query: str, original: str) -> dict[str, float]:
        return {layer: draw(COSINES) * norm(query, original, layer) for layer in layers}

    def norm(query: str, original: str, layer: str) -> float:
        squares = (norms["query", query, layer] ** 2, norms["original", original, layer] ** 2)
        return math.sqrt(squares[0]) * math.sqrt(squares[1])

    def cosines() -> dict[str, dict[str, float]]:
        return {query: {original: draw(COSINES) for original in lists[query]} for query in queries}

    dimensions = draw(st.lists(st.integers(1, 10**9), max_size=2, unique=True))
    tables = {
        "dot_products": {query: {each: dots(query, each) for each in lists[query]} for query in queries},
        "query_self": self_dots("query", queries),
        "original_self": self_dots("original", originals),
        "gradient_similarity": cosines() if draw(st.booleans()) else {},
        "projections": {str(dimension): cosines() for dimension in dimensions},
    }
    return {table: content for table, content in tables.items() if content}


@given(tables=layouts())
def test_any_layout_is_written_byte_for_byte(tables: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("random")
    layout = Layout(folder / "in", {"paraphrased": tables})
    layout.write()
    export(layout.read(), folder / "out")
    assert files_below(folder / "out") == files_below(folder / "in/data")


@given(tables=layouts(), ends=st.sets(st.integers(1, 3)))
def test_any_parts_are_read_as_the_whole(
    tables: dict[str, Any], ends: set[int], tmp_path_factory: pytest.TempPathFactory
) -> None:
    layout = Layout(tmp_path_factory.mktemp("random"), {"paraphrased": tables})
    layout.write()
    whole = layout.read()
    last = len(tables["query_self"])
    for table in tables:
        layout.write_parts(table, *sorted(end for end in ends if end < last), last)
    parts = layout.read()
    assert parts.ids == whole.ids
    ours, theirs = parts.settings["paraphrased"], whole.settings["paraphrased"]
    assert ours.keys() == theirs.keys()
    assert all(ours[name].equals(theirs[name]) for name in ours)


def test_numbers_are_written_as_json_writes_them(single: Layout, tmp_path: Path) -> None:
    values = [5e-324, 1e16, 1e22, 123456789.0, -0.0, 0.1, 1 / 3, 1.7976931348623157e308]
    single.tables["dot_products"] = {'ü\n"': {'ü\n"': dict(zip("abcdefgh", values, strict=True))}}
    for table in ("query_self", "original_self"):
        single.tables[table] = {'ü\n"': dict(zip("abcdefgh", map(abs, values), strict=True))}
    del single.tables["gradient_similarity"], single.tables["projections"]
    single.sizes = {}
    single.write()
    export(single.read(), tmp_path)
    path = tmp_path / "dot_products/paraphrased/org/model/sample_size/full/dot_products.json"
    assert path.read_text(encoding="ascii") == json.dumps(single.tables["dot_products"], indent=4)


def test_dimensions_are_brought_together(single: Layout, tmp_path: Path) -> None:
    """Combined tables are grouped by partition, with every dimension in each."""
    single.write()
    published = single.read()
    rows = published.settings["paraphrased"]["projected_similarity"]
    assert rows is not None
    first = rows["query_id"].cast(pl.String).is_in(["s0", "s1"])
    export(published, tmp_path / "out", projected_similarity=pl.concat([rows.filter(first), rows.filter(~first)]))
    assert files_below(tmp_path / "out") == files_below(single.root / "data")


def test_tables_of_other_samples_and_layers_than_the_rows(single: Layout, tmp_path: Path) -> None:
    """Ids and layers may be strings, or enums with unused categories."""
    single.write()
    published = single.read()
    texts = {
        name: frame.with_columns(pl.col(pl.Enum).cast(pl.String))
        for name, frame in published.settings["paraphrased"].items()
        if name != "candidates"
    }
    export(published, tmp_path / "texts", **texts)
    assert files_below(tmp_path / "texts") == files_below(single.root / "data")


class TestRefused:
    @pytest.fixture
    def published(self, single: Layout) -> Published:
        single.write()
        return single.read()

    @pytest.mark.parametrize("model", ["", "/models/mine", "../mine", "a//b", "a/sample_size/b", "./a"])
    def test_a_model_that_names_no_folder(self, published: Published, tmp_path: Path, model: str) -> None:
        with pytest.raises(StudyError, match="is not a valid folder name; use a name such as organisation/model"):
            export(published, tmp_path, model=model)

    @pytest.mark.parametrize("size", ["", "all", "0", "../full", "007"])
    def test_a_sample_size_that_is_none(self, published: Published, tmp_path: Path, size: str) -> None:
        with pytest.raises(StudyError, match="is neither full nor a number"):
            export(published, tmp_path, sample_size=size)

    @pytest.mark.parametrize("setting", ["", "..", "a/b", "/"])
    def test_a_setting_that_names_no_folder(self, published: Published, tmp_path: Path, setting: str) -> None:
        with pytest.raises(StudyError, match="is not a valid folder name"):
            export(published, tmp_path, setting=setting)

    @pytest.mark.parametrize("value", [None, float("nan"), float("inf")])
    def test_values_that_are_none(self, published: Published, tmp_path: Path, value: float | None) -> None:
        rows = published.settings["paraphrased"]["dot_products"]
        spoilt = rows.with_columns(dot=pl.when(pl.int_range(pl.len()) == 4).then(pl.lit(value)).otherwise("dot"))
        with pytest.raises(TableError, match="dot_products: 1 values of dot are missing or not finite"):
            export(published, tmp_path, dot_products=spoilt)
        assert files_below(tmp_path / "dot_products") == {}

    def test_rows_that_stand_twice(self, published: Published, tmp_path: Path) -> None:
        rows = published.settings["paraphrased"]["query_self"]
        with pytest.raises(TableError, match="the row of s0, embed is a duplicate"):
            export(published, tmp_path, query_self=pl.concat([rows[:1], rows]))

    def test_rows_that_do_not_stand_together(self, published: Published, tmp_path: Path) -> None:
        rows = published.settings["paraphrased"]["query_self"]
        with pytest.raises(TableError, match="rows of query_id 's0' are not contiguous"):
            export(published, tmp_path, query_self=pl.concat([rows[1:], rows[:1]]))

    def test_candidates_out_of_order(self, published: Published, tmp_path: Path) -> None:
        rows = published.settings["paraphrased"]["gradient_similarity"]
        assert rows is not None
        with pytest.raises(TableError, match="rows of query 's0' are not in the order of rank"):
            export(published, tmp_path, gradient_similarity=pl.concat([rows[1:2], rows[:1], rows[2:]]))

    def test_two_projections_to_as_many_dimensions(self, published: Published, tmp_path: Path) -> None:
        rows = published.settings["paraphrased"]["projected_similarity"]
        assert rows is not None
        both = pl.concat([rows, rows.with_columns(projection=pl.lit("sjlt"))])
        with pytest.raises(
            TableError, match=r"has 2 projections to 64 dimensions \(rademacher_as_published, sjlt\), .*; choose one"
        ):
            export(published, tmp_path, projected_similarity=both)

    def test_a_folder_that_cannot_be_written(self, published: Published, tmp_path: Path) -> None:
        (tmp_path / "dot_products").touch()
        with pytest.raises(TableError, match="cannot be written"):
            export(published, tmp_path)


def test_a_sample_of_the_study(single: Layout, tmp_path: Path) -> None:
    single.size = "4"
    single.write()
    export(read_published(find_published(single.root)), tmp_path / "out")
    assert files_below(tmp_path / "out") == files_below(single.root / "data")
