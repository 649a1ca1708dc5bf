"""Data roots of former versions stay readable.

`former_versions.tar.xz` has a folder each for 0.1 and 0.2: the study `old`, its four samples, and all that
`gradsim run old` of that version stored.
"""

import random
import shutil
import tarfile
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest

from gradsim.errors import TableError
from gradsim.tables import State, Store, TableKey
from gradsim.tables.index import IndexFile
from gradsim_assets_tests.gradsim.tables.conftest import stored_places
from gradsim_assets_tests.workplace import Workplace

VERSIONS = ("0.1", "0.2")


@pytest.fixture(params=VERSIONS)
def former(request: pytest.FixtureRequest, tmp_path: Path) -> Workplace:
    with tarfile.open(Path(__file__).with_name("former_versions.tar.xz")) as archive:
        archive.extractall(tmp_path, filter="data")
    place = Workplace(tmp_path / "place")
    shutil.move(tmp_path / request.param / "studies", place.studies)
    shutil.move(tmp_path / request.param / "data", place.data)
    return place


def files(store: Store) -> Iterator[tuple[TableKey, str | None, Path]]:
    for key, partition in stored_places(store):
        yield key, partition, store.path(key, partition)


def test_every_file_is_fresh_and_read(former):
    store = former.store("old")
    for key, partition, path in files(store):
        assert store.state(key, partition) is State.FRESH, path
        provenance = store.provenance(key, partition)
        assert provenance.schema_version == 1
        assert provenance.table is None
        if path.suffix == ".parquet":
            assert store.read(key, [partition]).equals(pl.read_parquet(path))
    with IndexFile(store.index()[0]) as index:
        assert index.rows == 2


def test_changed_rows_are_not_read(former):
    """Files of version 1 have no seal, but a digest of their rows."""
    store = former.store("old")
    choose = random.Random(0)
    places = [place for place in files(store) if place[2].suffix == ".parquet"]
    changed = 0
    for _ in range(200):
        key, partition, path = choose.choice(places)
        good = path.read_bytes()
        rows = pl.read_parquet(path)
        flipped = bytearray(good)
        flipped[choose.randrange(len(good))] ^= 1 << choose.randrange(8)
        path.write_bytes(flipped)
        try:
            assert store.read(key, [partition]).equals(rows), path
        except TableError:
            changed += 1
        path.write_bytes(good)
    assert changed > 100


@pytest.mark.slow
def test_a_run_computes_nothing(former):
    before = former.digests()
    former.gradsim("run", "old")
    assert {name: digest for name, digest in former.digests().items() if not name.startswith(".")} == before


@pytest.mark.slow
def test_files_of_a_later_version_are_refused_and_kept(former):
    path = former.data / "old/samples.parquet"
    provenance = '{"schema_version": 3, "code_version": "0.9.0", "table": {"name": "samples"}}'
    pl.read_parquet(path).write_parquet(path, metadata={"gradsim": provenance})
    before = path.read_bytes()
    for command in ("status", "run"):
        output = former.gradsim(command, "old", fails=True)
        assert f"{path}: written by gradsim 0.9.0, in a format that gradsim" in output
        assert "cannot read; upgrade gradsim, or set GRADSIM_DATA to another folder" in output
        assert "Traceback" not in output
    assert path.read_bytes() == before
