"""Files of projected gradients: read in place, whole or an error, of one definition."""

import numpy as np
import polars as pl
import pyarrow as pa
import pytest

from gradsim.errors import StudyError, TableError
from gradsim.tables import Provenance, State, Store
from gradsim.tables.index import IndexFile, index_writer, read_index_provenance
from gradsim.tables.validation import validate
from gradsim_assets_tests.gradsim.tables.indexes import FORMATS, header, vectors, write


@pytest.fixture
def path(tmp_path):
    return tmp_path / "index folder" / "0000-0001.arrow"


@pytest.mark.parametrize("stored_format", FORMATS)
@pytest.mark.parametrize("batch_bytes", [1, 1 << 24])
def test_what_was_written_is_read(path, stored_format, batch_bytes, monkeypatch):
    monkeypatch.setattr("gradsim.tables.index._BATCH_BYTES", batch_bytes)
    rows = vectors()
    provenance = write(path, rows, stored_format, revision="r", excluded={"x": "why"})
    with IndexFile(path) as file:
        assert (file.rows, file.header, file.provenance) == (7, header(stored_format), provenance)
        batches = list(file.batches())
        assert [sample for batch in batches for sample in batch.ids] == [f"s{number}" for number in range(7)]
        assert all(batch.vectors.dtype == stored_format for batch in batches)
        found = np.concatenate([batch.vectors for batch in batches]).astype(np.float64)
        scales, self_dots = (np.concatenate([getattr(b, name) for b in batches]) for name in ("scales", "self_dots"))
        for layer, place in enumerate(header().layout.slices):
            part = found[:, place] * scales[:, [layer]]
            error = np.abs(part - rows[:, place]).max(axis=1) / np.abs(rows[:, place]).max(axis=1)
            assert error.max() < (2**-11 if stored_format == "float16" else 1e-7)
            np.testing.assert_allclose(self_dots[:, layer], (part**2).sum(axis=1), rtol=1e-9)
        del batches  # views of the file
    assert read_index_provenance(path).data_version == provenance.data_version != ""


def test_vectors_are_read_in_place(path):
    write(path, vectors())
    with IndexFile(path) as file:
        (batch,) = file.batches()
        assert not batch.vectors.flags.owndata
        assert not batch.vectors.flags.writeable
        del batch


def test_the_version_is_that_of_the_rows(path):
    first = write(path, vectors(), revision="r").data_version
    assert write(path, vectors(), revision="r").data_version == first
    assert write(path, vectors(), revision="s").data_version != first
    assert write(path, vectors(6), revision="r").data_version != first
    assert write(path, vectors(), "float32", revision="r").data_version != first


def test_no_rows(path):
    write(path, [])
    with IndexFile(path) as file:
        assert (file.rows, list(file.batches())) == (0, [])


@pytest.mark.parametrize("share", [0, 0.1, 0.5, 0.99])
def test_a_truncated_file(path, share):
    write(path, vectors())
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(TableError, match=rf"{path}: not a readable table \(.+\); delete it and run again"):
        IndexFile(path)


@pytest.mark.parametrize("content", [b"", b"ARROW1", b"not an index" * 99])
def test_a_file_that_is_something_else(path, content):
    path.parent.mkdir()
    path.write_bytes(content)
    with pytest.raises(TableError, match="not a readable table"):
        read_index_provenance(path)


def test_an_arrow_file_without_batches(path):
    path.parent.mkdir()
    with pa.ipc.new_file(path, pa.schema([("id", pa.string())])):
        pass
    with pytest.raises(TableError, match="not a readable table"):
        IndexFile(path)


def test_a_missing_file(path):
    with pytest.raises(TableError, match=rf"{path}: does not exist; create it with gradsim run"):
        IndexFile(path)


def test_a_writer_that_breaks_leaves_the_old_file(path):
    old = write(path, vectors())
    with pytest.raises(ValueError, match="broadcast"), index_writer(path, header(), Provenance()) as writer:
        writer.add("s0", vectors()[0][:700])
    assert read_index_provenance(path) == old
    assert [each.name for each in path.parent.iterdir()] == [path.name]


class TestStore:
    @pytest.fixture
    def indexed(self, filled: Store, make_study) -> Store:
        """A study that stores projected gradients; everything else is computed."""
        return Store(filled.root, make_study(projections=[{"share": 0.01, "store_projected": True}]))

    def fill(self, store: Store) -> None:
        for partition in store.partitions(store.lineage.key("gradient_index")):
            self.fill_partition(store, str(partition), store.ids_of(str(partition)))

    def fill_partition(self, store: Store, partition: str, ids: list[str], **known: object) -> None:
        with store.index_writer(partition, header(), Provenance.model_validate(known)) as writer:
            for sample in ids:
                writer.add(sample, vectors()[0])

    @pytest.mark.parametrize(
        ("ids", "excluded", "faults"),
        [
            (["a", "b"], {}, {}),
            (["a"], {"b": "no loss"}, {}),
            (["a"], {}, {"rows_complete": "1 rows, expected 2"}),
            (["a", "a"], {}, {"rows_complete": "1 duplicate rows"}),
            (["a", "c"], {}, {"ids_known": "id 'c' is not in the partition"}),
        ],
    )
    def test_checks(self, indexed: Store, ids, excluded, faults) -> None:
        self.fill_partition(indexed, "0000-0001", ids, excluded=excluded)
        found = validate(indexed, indexed.lineage.key("gradient_index"), "0000-0001")
        assert {name: fault for name, fault in found.items() if fault} == faults

    def test_to_store_makes_nothing_else_stale(self, indexed: Store) -> None:
        states = {
            str(node.key): indexed.state(node.key, partition)
            for node in indexed.lineage
            for partition in indexed.partitions(node.key)
        }
        assert {key for key, state in states.items() if state is not State.FRESH} == {"mine/gradient_index"}
        self.fill(indexed)
        key = indexed.lineage.key("gradient_index")
        assert {indexed.state(key, partition) for partition in indexed.partitions(key)} == {State.FRESH}

    @pytest.mark.parametrize(
        "change", [{"stored_format": "float32"}, {"share": 0.02}, {"kind": "mask"}, {"total": 6, "share": None}]
    )
    def test_another_definition(self, indexed: Store, make_study, change) -> None:
        self.fill(indexed)
        projection = {"share": 0.01, "store_projected": True, **change}
        other = Store(indexed.root, make_study(projections=[projection]))
        assert other.state(other.lineage.key("gradient_index"), "0000-0001") is State.STALE
        with pytest.raises(TableError, match=r"0000-0001.arrow has fingerprint \w+, the study's definition gives \w+"):
            other.index()

    def test_the_scaling_of_its_projection_changes_no_vector(self, indexed: Store, make_study) -> None:
        self.fill(indexed)
        projection = {"share": 0.01, "store_projected": True, "scaling": "as_published"}
        other = Store(indexed.root, make_study(projections=[projection]))
        assert other.state(other.lineage.key("gradient_index"), "0000-0001") is State.FRESH

    def test_files_of_different_definitions(self, indexed: Store, make_study) -> None:
        self.fill(indexed)
        other = Store(indexed.root, make_study(seed=1, projections=[{"share": 0.01, "store_projected": True}]))
        self.fill_partition(other, "0002-0003", ["c", "d"])
        with pytest.raises(TableError, match="they were made from different definitions of the study"):
            indexed.index()

    def test_partitions_of_another_size(self, indexed: Store, make_study) -> None:
        self.fill(indexed)
        other = Store(
            indexed.root, make_study(partition_size=4, projections=[{"share": 0.01, "store_projected": True}])
        )
        with (
            pytest.raises(TableError, match=r"0000-0001.arrow: a partition of another size"),
            other.index_writer("0000-0003", header(), Provenance()),
        ):
            pass

    def test_a_study_that_stores_none(self, filled: Store) -> None:
        with pytest.raises(StudyError) as caught:
            filled.index()
        assert str(caught.value) == (
            "study 'mine' stores no projected gradients; set store_projected: true on one of its projections, "
            "and run it"
        )

    def test_a_partition_that_is_not_there(self, indexed: Store) -> None:
        with pytest.raises(TableError, match=r"mine/gradient_index 0000-0001 is missing in .*--partition 0000-0001`$"):
            indexed.index()

    def test_ids_are_the_studys(self, indexed: Store) -> None:
        assert indexed.ids_of("0000-0001") == ["a", "b"]
        assert isinstance(indexed.ids, pl.Enum)
