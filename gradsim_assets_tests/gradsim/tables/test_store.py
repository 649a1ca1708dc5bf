import re
import shutil
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from gradsim.errors import TableError
from gradsim.study import HubModel, ModelConfiguration, Study
from gradsim.tables import SCHEMAS, Provenance, State, Store, TableKey
from gradsim.tables.files import read_table
from gradsim.tables.lineage import CODE_VERSIONS, GRADIENT_TABLES, PROJECTED_TABLES
from gradsim.tables.writing import write_table

FIRST, LAST = "0000-0001", "0002-0003"


def states(store: Store) -> dict[str, State]:
    """Every file of a study, without the study's name -> its state."""
    return {
        "/".join([*node.key.parts[1:], *([partition] if partition else [])]): store.state(node.key, partition)
        for node in store.lineage
        for partition in store.partitions(node.key)
    }


def not_fresh(store: Store) -> dict[str, str]:
    return {name: state.value for name, state in states(store).items() if state is not State.FRESH}


def rewrite(store: Store, key: TableKey, partition: str | None = None, change: Callable | None = None) -> None:
    rows = read_table(store.path(key, partition))
    store.write(key, change(rows) if change else rows, partition)


OF_PROJECTIONS = (
    "accuracy",
    "method_differences",
    "retrieval",
    "best_similarity",
    "held_out_selection",
    "selection_under_budget",
    "select_or_project",
    "projection_audit",
)


class TestState:
    def test_nothing_is_there_at_first(self, store: Store) -> None:
        assert set(states(store).values()) == {State.MISSING}

    def test_what_was_written_is_fresh(self, filled: Store) -> None:
        assert not_fresh(filled) == {}

    def test_for_another_process_too(self, filled: Store) -> None:
        assert not_fresh(Store(filled.root, filled.study)) == {}

    def test_other_rows_make_what_is_made_from_them_stale(self, filled: Store) -> None:
        key = filled.lineage.key("candidates", "paraphrased")
        rewrite(filled, key, LAST, lambda rows: rows.with_columns(pl.col("score") + 1))
        assert not_fresh(filled) == {
            # Only the partition that they are made from, and not what comes after: its inputs did not change yet.
            **{f"paraphrased/{table}/{LAST}": "stale" for table in GRADIENT_TABLES},
            "paraphrased/results/candidates": "stale",
        }

    def test_what_was_made_from_inputs_that_changed_meanwhile_is_stale(self, filled: Store) -> None:
        """A job reads first and writes hours later; it says what it read."""
        dots, candidates = (filled.lineage.key(name, "paraphrased") for name in ("dot_products", "candidates"))
        read = filled.input_versions(dots, LAST)
        job = Store(filled.root, filled.study, versions=read)
        rewrite(filled, candidates, LAST, lambda rows: rows.with_columns(pl.col("score") + 1))
        rewrite(job, dots, LAST)
        assert filled.provenance(dots, LAST).inputs == read
        assert filled.state(dots, LAST) is State.STALE
        rewrite(filled, dots, LAST)
        assert filled.state(dots, LAST) is State.FRESH

    def test_a_file_that_is_to_take_a_tables_place_is_judged_as_the_table(self, filled: Store) -> None:
        key = filled.lineage.key("dot_products", "paraphrased")
        other = filled.path(key, LAST).with_name(".on its way")
        filled.path(key, LAST).rename(other)
        assert filled.state(key, LAST) is State.MISSING
        assert filled.state(key, LAST, other) is State.FRESH
        other.write_bytes(b"half")
        assert filled.state(key, LAST, other) is State.CORRUPT

    def test_the_same_rows_written_again_change_nothing(self, filled: Store) -> None:
        for node in filled.lineage:
            for partition in filled.partitions(node.key):
                if node.key.name != "report":
                    rewrite(filled, node.key, partition)
        assert not_fresh(filled) == {}

    def test_another_definition(self, filled: Store, make_study: Callable[..., Study]) -> None:
        store = Store(filled.root, make_study(projections=[]))
        places = ("{}/0000-0001", "{}/0002-0003", "results/{}")
        names = [place.format(table) for table in PROJECTED_TABLES for place in places]
        assert not_fresh(store) == {
            f"{setting}/{name}": "stale"
            for setting in ("paraphrased", "model_generated")
            for name in (*names, *(f"analysis/{name}" for name in OF_PROJECTIONS))
        } | dict.fromkeys(("projections", "analysis/selection_transfer", "report"), "stale")

    def test_a_partition_that_is_gone(self, filled: Store) -> None:
        filled.path(filled.lineage.key("dot_products", "paraphrased"), FIRST).unlink()
        assert not_fresh(filled) == {
            f"paraphrased/dot_products/{FIRST}": "missing",
            "paraphrased/results/dot_products": "stale",
        }

    @pytest.mark.parametrize("content", [b"", b"PAR1", b"not a table"])
    def test_a_damaged_partition(self, filled: Store, content: bytes) -> None:
        filled.path(filled.lineage.key("query_self", "model_generated"), LAST).write_bytes(content)
        assert not_fresh(filled) == {
            f"model_generated/query_self/{LAST}": "corrupt",
            "model_generated/results/query_self": "stale",
        }

    @pytest.mark.parametrize("table", ["query_self", "original_self"])
    def test_self_dots_that_were_stored_without_loss_and_noise(
        self, filled: Store, monkeypatch: pytest.MonkeyPatch, table: str
    ) -> None:
        key, combined = (filled.lineage.key(table, "paraphrased", room) for room in (None, "results"))
        with monkeypatch.context() as before:
            before.setattr("gradsim.tables.lineage.CODE_VERSIONS", {**CODE_VERSIONS, table: 1})
            earlier = {each: filled.lineage.fingerprint(each) for each in (key, combined)}
        for each, fingerprint in earlier.items():
            for partition in filled.partitions(each):
                rows = filled.read(each, [partition]).drop("loss", "noise")
                provenance = filled.provenance(each, partition).model_copy(update={"fingerprint": fingerprint})
                write_table(rows, filled.path(each, partition), provenance)
        stale = not_fresh(filled)
        assert {f"paraphrased/{table}/{FIRST}", f"paraphrased/{table}/{LAST}"} <= stale.keys()
        assert {f"paraphrased/results/{table}", "paraphrased/analysis/accuracy_per_layer", "report"} <= stale.keys()
        assert f"paraphrased/dot_products/{FIRST}" not in stale
        for each in earlier:
            with pytest.raises(TableError, match="was made from another definition; run it again"):
                filled.read(each)

    def test_a_damaged_report(self, filled: Store) -> None:
        filled.path(filled.lineage.key("report")).write_text("<p>cut off")
        assert not_fresh(filled) == {"report": "corrupt"}

    def test_another_model_s_revision(self, filled: Store) -> None:
        key = filled.lineage.key("model")
        filled.write(key, filled.read(key), provenance=Provenance(revision="retrained"))
        assert "tokenized" in not_fresh(filled)
        assert f"paraphrased/dot_products/{FIRST}" in not_fresh(filled)
        assert f"paraphrased/queries/{FIRST}" not in not_fresh(filled)
        assert f"model_generated/queries/{FIRST}" in not_fresh(filled)


class TestReading:
    def test_partitions_come_in_order(self, filled: Store) -> None:
        key = filled.lineage.key("candidates", "paraphrased")
        assert filled.read(key)["query_id"].to_list() == ["a", "a", "b", "b", "c", "c", "d", "d"]
        assert filled.read(key, [LAST])["query_id"].to_list() == ["c", "c", "d", "d"]

    def test_identifiers_are_in_the_study_s_own_order(self, filled: Store) -> None:
        rows = filled.read(filled.lineage.key("dot_products", "paraphrased"))
        assert rows.schema["query_id"] == rows.schema["original_id"] == filled.ids == pl.Enum(["a", "b", "c", "d"])
        assert rows.schema["layer"] == filled.layers == pl.Enum(["embedding", "head"])

    def test_polars_reads_a_table_without_us(self, filled: Store) -> None:
        folder = filled.root / "mine/paraphrased/dot_products"
        rows = pl.scan_parquet(folder / "*.parquet").collect()
        assert rows.equals(filled.read(filled.lineage.key("dot_products", "paraphrased")))

    @pytest.mark.usefixtures("tiny_blocks")
    def test_block_by_block(self, filled: Store) -> None:
        key = filled.lineage.key("dot_products", "paraphrased")
        blocks = list(filled.blocks(key))
        assert [block.height for block in blocks] == [3, 3, 2] * 2
        assert pl.concat(blocks).equals(filled.read(key))
        filled.path(key, LAST).unlink()
        with pytest.raises(TableError, match="is missing"):
            filled.blocks(key)

    def test_a_missing_partition(self, filled: Store) -> None:
        key = filled.lineage.key("candidates", "paraphrased")
        filled.path(key, LAST).unlink()
        message = (
            f"mine/paraphrased/candidates {LAST} is missing in {filled.root}; materialize it, or run "
            f"`gradsim run mine --setting paraphrased --partition {LAST}`"
        )
        with pytest.raises(TableError, match=f"^{re.escape(message)}$"):
            filled.read(key)
        assert len(filled.read(key, [FIRST])) == 4

    def test_two_definitions_do_not_mix(self, filled: Store, make_study: Callable[..., Study]) -> None:
        key = filled.lineage.key("candidates", "paraphrased")
        other = Store(filled.root, make_study(top_k=1))
        other.write(key, filled.read(key, [LAST]).filter(rank=0), LAST)
        mine, others = (each.lineage.fingerprint(key) for each in (filled, other))
        with pytest.raises(TableError) as caught:
            filled.read(key)
        assert str(caught.value) == (
            f"{filled.path(key, LAST)} has fingerprint {others}, {filled.path(key, FIRST)} has {mine}: "
            "they were made from different definitions of the study; run the stale one again"
        )

    def test_inputs_of_two_versions_do_not_mix(self, filled: Store) -> None:
        key, tokenized = filled.lineage.key("candidates", "paraphrased"), filled.lineage.key("tokenized")
        before = filled.provenance(tokenized).data_version
        rewrite(filled, tokenized, None, lambda rows: rows.with_columns(labels="input_ids"))
        rewrite(filled, key, LAST)
        with pytest.raises(TableError) as caught:
            filled.read(key)
        assert str(caught.value) == (
            f"{filled.path(key, LAST)} was made from version {filled.provenance(tokenized).data_version} of "
            f"mine/tokenized, {filled.path(key, FIRST)} from {before}; run the stale one again"
        )

    def test_a_partition_whose_input_changed_since_is_not_read(self, filled: Store) -> None:
        key, candidates = (filled.lineage.key(name, "paraphrased") for name in ("dot_products", "candidates"))
        before = filled.provenance(candidates, LAST).data_version
        rewrite(filled, candidates, LAST, lambda rows: rows.with_columns(pl.col("score") + 1))
        message = (
            f"{filled.path(key, LAST)} was made from version {before} of {candidates}/{LAST}, "
            f"which is {filled.provenance(candidates, LAST).data_version} now; run it again"
        )
        for read in (filled.read, filled.blocks, filled.paths):
            with pytest.raises(TableError, match=f"^{re.escape(message)}$"):
                read(key)
        assert filled.read(key, [FIRST]).height == 8

    def test_tables_are_read_where_only_they_were_copied_to(self, filled: Store) -> None:
        key = filled.lineage.key("dot_products", "paraphrased")
        before = filled.read(key)
        for source in ("candidates", "tokenized", "queries"):
            shutil.rmtree(filled.root / "mine/paraphrased" / source)
        assert filled.read(key).equals(before)

    def test_another_definition_is_not_read_as_the_study_s(
        self, filled: Store, make_study: Callable[..., Study]
    ) -> None:
        key = filled.lineage.key("candidates", "paraphrased")
        other = Store(filled.root, make_study(top_k=1))
        mine, others = (each.lineage.fingerprint(key) for each in (filled, other))
        with pytest.raises(TableError) as caught:
            other.read(key)
        assert str(caught.value) == (
            f"{filled.path(key, FIRST)} has fingerprint {mine}, the study's definition gives {others}: "
            "it was made from another definition; run it again"
        )


class TestWriting:
    def test_partitions_of_two_sizes_do_not_lie_side_by_side(
        self, filled: Store, make_study: Callable[..., Study]
    ) -> None:
        key = filled.lineage.key("candidates", "paraphrased")
        other = Store(filled.root, make_study(partition_size=4))
        with pytest.raises(TableError) as caught:
            other.write(key, filled.read(key), "0000-0003")
        assert str(caught.value) == (
            f"{filled.path(key, FIRST)}: a partition of another size than the study's 4; "
            f"move or delete such files of {filled.root / 'mine'}, or set partition_size back"
        )
        assert not other.path(key, "0000-0003").exists()

    def test_provenance(self, filled: Store) -> None:
        key = filled.lineage.key("candidates", "paraphrased")
        versions = {
            name: filled.provenance(filled.lineage.key(table, setting), partition).data_version
            for name, table, setting, partition in [
                ("mine/samples", "samples", None, None),
                ("mine/tokenized", "tokenized", None, None),
                (f"mine/paraphrased/queries/{LAST}", "queries", "paraphrased", LAST),
                (f"mine/paraphrased/tokenized/{LAST}", "tokenized", "paraphrased", LAST),
            ]
        }
        provenance = filled.provenance(key, LAST)
        assert provenance.inputs == versions
        assert provenance.fingerprint == filled.lineage.fingerprint(key)
        assert provenance.device == "cpu"

    def test_a_combined_table_names_every_partition(self, filled: Store) -> None:
        provenance = filled.provenance(filled.lineage.key("candidates", "paraphrased", "results"))
        assert list(provenance.inputs) == [f"mine/paraphrased/candidates/{each}" for each in (FIRST, LAST)]

    def test_an_input_that_is_gone(self, filled: Store) -> None:
        key = filled.lineage.key("candidates", "paraphrased")
        rows = filled.read(key, [FIRST])
        filled.path(filled.lineage.key("queries", "paraphrased"), FIRST).unlink()
        with pytest.raises(TableError, match=f"^mine/paraphrased/queries {FIRST} is missing in "):
            filled.write(key, rows, FIRST)

    def test_rows_that_do_not_fit(self, filled: Store) -> None:
        key = filled.lineage.key("candidates", "paraphrased")
        before = filled.path(key, FIRST).read_bytes()
        with pytest.raises(TableError) as caught:
            filled.write(key, filled.read(key, [FIRST]).drop("score"), FIRST)
        assert str(caught.value) == (
            "table mine/paraphrased/candidates: column 'score' is missing; it has query_id, original_id, rank, forced"
        )
        assert filled.path(key, FIRST).read_bytes() == before

    def test_no_rows(self, filled: Store) -> None:
        """A partition whose queries were all excluded."""
        key = filled.lineage.key("dot_products", "paraphrased")
        filled.write(key, SCHEMAS["dot_products"].empty(), LAST)
        assert filled.read(key)["query_id"].unique().to_list() == ["a", "b"]
        assert filled.state(key, LAST) is State.FRESH

    @pytest.mark.parametrize("size", [1, 3, 5, 8])
    def test_rows_that_come_in_pieces(self, filled: Store, size: int) -> None:
        key = filled.lineage.key("dot_products", "paraphrased")
        rows, before = filled.read(key, [FIRST]), filled.provenance(key, FIRST)
        with filled.writer(key, FIRST, Provenance(device="cpu")) as writer:
            for piece in rows.with_columns(pl.col("query_id", "layer").cast(pl.String)).iter_slices(size):
                writer.add(piece)
        assert writer.provenance == filled.provenance(key, FIRST)
        assert writer.provenance.model_copy(update={"created": before.created}) == before
        assert filled.read(key, [FIRST]).equals(rows)
        assert filled.read(key, [FIRST]).schema == rows.schema
        assert not_fresh(filled) == {}

    def test_no_piece_at_all(self, filled: Store) -> None:
        key = filled.lineage.key("dot_products", "paraphrased")
        with filled.writer(key, LAST):
            pass
        assert filled.read(key, [LAST]).is_empty()
        assert filled.read(key, [LAST]).schema == filled.read(key, [FIRST]).schema
        assert filled.state(key, LAST) is State.FRESH

    def test_pieces_of_which_one_does_not_fit(self, filled: Store) -> None:
        key = filled.lineage.key("candidates", "paraphrased")
        rows, before = filled.read(key, [FIRST]), filled.path(key, FIRST).read_bytes()

        def write() -> None:
            with filled.writer(key, FIRST) as writer:
                writer.add(rows)
                writer.add(rows.drop("score"))

        with pytest.raises(TableError, match="column 'score' is missing"):
            write()
        assert filled.path(key, FIRST).read_bytes() == before
        assert not list(filled.root.rglob("*.partial"))

    def test_ids_of_a_partition(self, filled: Store) -> None:
        assert [filled.ids_of(each) for each in (FIRST, LAST)] == [["a", "b"], ["c", "d"]]


ONE_LAYER = pl.DataFrame({"layer": ["a"], "shape": [[2, 3]], "parameters": [6]})


@pytest.fixture
def hub_store(study: Study, tmp_path: Path) -> Store:
    """The store of a study with a model from the Hub."""
    hub = study.model_copy(update={"model": HubModel(name="someone/some-model", revision="main")})
    return Store(tmp_path / "data", hub)


def test_a_reference_model_is_loaded_from_the_studys_folder(study: Study, tmp_path: Path) -> None:
    model = study.model.model_copy(update={"precision": "float64", "attention": "eager"})
    store = Store(tmp_path / "data", study.model_copy(update={"model": model}))
    write_table(ONE_LAYER, store.path(store.lineage.key("model")), Provenance(revision="456def"))
    assert store.model_configuration("cuda:1") == ModelConfiguration(
        name=str(tmp_path / "data" / "mine" / "model"),
        revision="456def",
        device="cuda:1",
        precision="float64",
        attention="eager",
    )


def test_a_hub_model_is_loaded_at_the_revision_that_the_tables_were_begun_with(hub_store: Store) -> None:
    provenance = Provenance(model="someone/some-model", revision="0123abc")
    hub_store.write(hub_store.lineage.key("model"), ONE_LAYER, provenance=provenance)
    configuration = hub_store.model_configuration()
    assert (configuration.name, configuration.revision) == ("someone/some-model", "0123abc")
    assert (configuration.device, configuration.precision, configuration.attention) == ("auto", "float32", "sdpa")


def test_a_hub_model_without_its_table_is_an_error_that_names_it(hub_store: Store) -> None:
    with pytest.raises(TableError) as error:
        hub_store.model_configuration()
    expected = f"mine/model is missing in {hub_store.root}; materialize it, or run `gradsim run mine`"
    assert str(error.value) == expected
