"""Published results in and out by the command: a study of their own, beside the one that they came from."""

import json
from collections.abc import Callable
from pathlib import Path

import dagster as dg
import polars as pl
import pytest
import yaml
from polars.testing import assert_frame_equal
from typer.testing import CliRunner

from gradsim.errors import GradsimError
from gradsim.published import export_published, find_published, read_published
from gradsim.tables import State, Store
from gradsim.tables.lineage import DOT_TABLES
from gradsim_assets.build import build_definitions
from gradsim_assets.cli import app
from gradsim_assets_tests.workplace import Workplace

pytestmark = pytest.mark.slow

SETTINGS = ("paraphrased", "word_dropout", "model_generated")


@pytest.fixture(scope="module")
def published(finished: Workplace, tmp_path_factory: pytest.TempPathFactory) -> Workplace:
    """`tiny`'s results, exported, imported as `published` and run; to be read only, or copied."""
    place = finished.copy(tmp_path_factory.mktemp("published"))
    exported = place.gradsim("export-published", "tiny", str(place.folder / "exported"))
    assert exported.count("dot_products.json") == 9
    (place.folder / "imported.txt").write_text(
        place.gradsim("import-published", str(place.folder / "exported"), "--study", "published"), encoding="utf-8"
    )
    (place.folder / "run.txt").write_text(place.gradsim("run", "published"), encoding="utf-8")
    return place


@pytest.fixture
def copied(published: Workplace, tmp_path: Path) -> Workplace:
    """A copy that a test may change."""
    copy = published.copy(tmp_path)
    (copy.folder / "exported").symlink_to(published.folder / "exported")
    return copy


@pytest.fixture
def refused(monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Runs a command of a workplace in this process, which is quicker, and gives the one line that it ends with."""

    def run(place: Workplace, *command: str) -> str:
        for name, value in place.variables.items():
            monkeypatch.setenv(name, value)
        result = CliRunner().invoke(app, list(command))
        assert isinstance(result.exception, GradsimError), result.output
        return str(result.exception)

    return run


def test_what_comes_back_is_what_went_out(published: Workplace) -> None:
    there, here = published.store("tiny"), published.store("published")
    for setting in SETTINGS:
        for table in (*DOT_TABLES, "gradient_similarity"):
            one, two = (store.read(store.lineage.key(table, setting, "results")) for store in (there, here))
            unpublished = [name for name in ("loss", "noise") if name in two.columns]
            assert all(two[name].null_count() == two.height for name in unpublished)
            assert_frame_equal(
                two.drop(unpublished), one.drop(unpublished), check_dtypes=False, categorical_as_str=True
            )
        key = (
            there.lineage.key("accuracy_per_layer", setting, "analysis"),
            here.lineage.key("accuracy_per_layer", setting, "analysis"),
        )
        assert_frame_equal(here.read(key[1]), there.read(key[0]), check_dtypes=False, categorical_as_str=True)


def test_everything_is_made_that_needs_no_model(published: Workplace) -> None:
    store = published.store("published")
    assert {str(store.state(node.key)) for node in store.lineage} == {State.FRESH}
    names = {node.key.name for node in store.lineage}
    assert {"held_out_selection", "select_or_project", "selection_transfer", "report"} <= names
    assert not {"queries", "tokenized", "gradient_audit"} & names
    candidates = store.read(store.lineage.key("candidates", "paraphrased", "results"))
    assert candidates["score"].null_count() == candidates["forced"].null_count() == candidates.height
    controls = store.read(store.lineage.key("controls", "paraphrased", "analysis"))
    assert "answer_length" not in controls["control"].to_list()
    page = store.path(store.lineage.key("report")).read_text(encoding="utf-8")
    assert "not available" in page
    assert "paraphrased" in (published.folder / "run.txt").read_text(encoding="utf-8")


def test_the_import_says_what_it_found(published: Workplace) -> None:
    said = (published.folder / "imported.txt").read_text(encoding="utf-8")
    assert "random projections" not in said, "they came along"
    assert "20 queries" in said
    assert "next: gradsim run published" in said


def test_the_web_ui_knows_imported_tables(published: Workplace) -> None:
    with published.instance() as instance:
        event = instance.get_latest_materialization_event(
            dg.AssetKey(["published", "paraphrased", "results", "dot_products"])
        )
        assert event
        assert event.asset_materialization
        rows = event.asset_materialization.metadata["dagster/row_count"].value
        assert isinstance(rows, int)
        assert rows > 0
    definitions = build_definitions(environment=published.environment)
    graph = definitions.resolve_asset_graph()
    assert not graph.get(dg.AssetKey(["published", "samples"])).is_materializable
    assert graph.get(dg.AssetKey(["published", "paraphrased", "analysis", "accuracy"])).is_materializable


@pytest.mark.parametrize(
    "command",
    [
        ("run", "published", "--computation", "dot-product"),
        ("run", "published", "--partition", "0000-0019", "--computation", "gradient-similarity"),
        ("prepare", "published", "paraphrased"),
        ("combine", "published"),
        ("plan", "published"),
        ("query", "published", "Why?", "--answer", "Because."),
    ],
    ids=lambda command: command[0],
)
def test_computing_says_that_there_is_no_model(published: Workplace, command: tuple[str, ...], refused) -> None:
    line = refused(published, *command)
    assert "study 'published' was imported and has no model" in line
    assert "make its analyses and report: gradsim run published" in line


def test_an_import_does_not_replace_anything_unasked(copied: Workplace, refused) -> None:
    before = copied.digests()
    exported = str(copied.folder / "exported")
    for name, why in (
        ("published", "use --force to replace it"),
        ("tiny", "a study file for 'tiny' already exists"),
    ):
        assert why in refused(copied, "import-published", exported, "--study", name)
    (copied.data / "other" / "samples").mkdir(parents=True)
    assert "choose another name" in refused(copied, "import-published", exported, "--study", "other", "--force")
    # As somebody keeps a study file beside what was computed by it.
    (copied.studies / "tiny.yaml").rename(copied.data / "tiny" / "study.yaml")
    before = copied.digests()
    assert "choose another name" in refused(copied, "import-published", exported, "--study", "tiny", "--force")
    assert "cannot be a study's name" in refused(copied, "import-published", exported, "--study", "a/b")
    assert copied.digests() == before


def test_an_export_is_not_mixed_with_another(copied: Workplace, refused) -> None:
    folder = copied.folder / "exported"
    assert f"{folder / 'data'}: already exists" in refused(copied, "export-published", "tiny", str(folder))


def test_tables_that_are_not_fresh_are_not_exported(copied: Workplace, refused) -> None:
    store, folder = copied.store("tiny"), copied.folder / "again"
    key, partition = store.lineage.key("query_self", "paraphrased"), "0000-0006"
    store.write(key, store.read(key, [partition]).with_columns(pl.col("self_dot") * 2), partition)
    output = refused(copied, "export-published", "tiny", str(folder))
    assert "query_self.parquet: stale" in output
    assert "run gradsim combine tiny" in output
    assert not folder.exists()
    copied.gradsim("combine", "tiny")
    copied.gradsim("export-published", "tiny", str(folder))


def test_projections_to_two_dimensions_are_exported(copied: Workplace) -> None:
    """All partitions have both dimensions, and their combined table one partition after the other."""
    definition = yaml.safe_load((copied.studies / "tiny.yaml").read_text(encoding="utf-8"))
    projections = [{"kind": "sjlt", "share": 0.1, "store_projected": True}, {"kind": "sjlt", "total": 700}]
    copied.write_study("tiny", **{**definition, "projections": projections})
    copied.gradsim("run", "tiny", "--setting", "paraphrased", "--computation", "random-projection")
    copied.gradsim("combine", "tiny", "--setting", "paraphrased")
    store = copied.store("tiny")
    there = store.read(store.lineage.key("projected_similarity", "paraphrased", "results"))
    assert there["dimension"].rle().len() == 2 * len(store.study.partitions) > 2
    both = there["dimension"].unique(maintain_order=True).to_list()
    settings = {"paraphrased": store.study.settings["paraphrased"]}
    paths, _ = export_published(
        Store(copied.data, store.study.model_copy(update={"settings": settings})), copied.folder / "again"
    )
    (path,) = [path for path in paths if "random_projection" in path.parts]
    written = json.loads(path.read_text(encoding="ascii"))
    assert list(written) == [str(dimension) for dimension in both]
    rows = there.with_columns(pl.col("query_id", "original_id").cast(pl.String))
    for dimension, query, original, similarity in rows.select(
        "dimension", "query_id", "original_id", "similarity"
    ).iter_rows():
        assert written[str(dimension)][query][original] == similarity


def test_force_replaces_an_import_and_what_was_made_of_it(copied: Workplace) -> None:
    exported = str(copied.folder / "exported")
    copied.gradsim("import-published", exported, "--study", "published", "--setting", "word-dropout", "--force")
    store = copied.store("published")
    assert list(store.study.settings) == ["word_dropout"]
    assert not (copied.data / "published" / "paraphrased").exists()
    assert store.state(store.lineage.key("accuracy", "word_dropout", "analysis")) is State.MISSING


def test_malformed_results_leave_the_earlier_import_alone(copied: Workplace) -> None:
    folder = copied.folder / "broken"
    (target,) = (copied.folder / "exported").glob("data/dot_products/word_dropout/**/dot_products.json")
    broken = folder / target.relative_to(copied.folder / "exported")
    broken.parent.mkdir(parents=True)
    for path in target.parent.glob("*.json"):
        (broken.parent / path.name).write_bytes(path.read_bytes())
    content = json.loads(broken.read_text(encoding="utf-8"))
    query = next(iter(content))
    content[query].pop(query)
    broken.write_text(json.dumps(content), encoding="utf-8")
    before = copied.digests()
    output = copied.gradsim("import-published", str(folder), "--study", "published", "--force", fails=True)
    assert query in output
    assert "Traceback" not in output
    assert copied.digests() == before


def test_a_lost_table_has_to_be_imported_again(copied: Workplace, refused) -> None:
    copied.delete("published/paraphrased/results/query_self.parquet")
    line = refused(copied, "run", "published")
    assert "query_self.parquet: missing; import it again" in line


def test_status_counts_imported_tables(published: Workplace) -> None:
    output = published.gradsim("status", "published", "--all")
    assert "results/dot_products" in output
    assert not any(word in output for word in ("Traceback", "error"))


def test_a_trial_is_exported_as_a_sample_of_its_size(copied: Workplace) -> None:
    store, folder = copied.store("published"), copied.folder / "trial"
    trial = Store(copied.data, store.study.model_copy(update={"first_samples": 20}))
    paths, _ = export_published(trial, folder)
    assert {path.parent.name for path in paths if path.name.endswith("dot_products.json")} == {"20"}
    assert read_published(find_published(folder)).sample_size == "20"


def test_notebooks_open_imported_studies_too(published: Workplace, monkeypatch: pytest.MonkeyPatch) -> None:
    import gradsim

    for name, value in published.variables.items():
        monkeypatch.setenv(name, value)
    study = gradsim.open_study("published")
    assert set(study.tables["state"]) == {"fresh"}
    dots = study["paraphrased"].scan("dot_products")
    assert isinstance(dots, pl.LazyFrame)
    assert dots.select(pl.len()).collect().item() == 20 * 3 * study.sizes.height
