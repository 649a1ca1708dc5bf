import json
import os
import random
import re
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradsim.errors import TableError
from gradsim.tables import Provenance, read_provenance, write_table
from gradsim.tables.files import atomic_path, data_version, read_table

NOBODY = 65534
FRAME = pl.DataFrame(
    {"id": ["a", "b"], "value": [1.5, None], "tokens": [[1, 2], []]},
    schema={"id": pl.Enum(["a", "b", "c"]), "value": pl.Float64, "tokens": pl.List(pl.Int32)},
)


def names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A table that was written well."""
    path = tmp_path / "table.parquet"
    write_table(FRAME, path, Provenance())
    return path


@contextmanager
def ordinary_user() -> Iterator[None]:
    """Root may write everywhere, so for this block it is somebody else."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def read_only() -> Iterator[Path]:
    """A folder that everybody may read and nobody may write."""
    with tempfile.TemporaryDirectory() as folder:
        locked = Path(folder) / "locked"
        locked.mkdir()
        Path(folder).chmod(0o755)
        locked.chmod(0o555)
        yield locked
        locked.chmod(0o755)


class TestWriting:
    def test_rows_and_provenance_come_back(self, tmp_path: Path) -> None:
        path = tmp_path / "new folder" / "table.parquet"
        known = Provenance(
            fingerprint="f",
            inputs={"samples": "v"},
            model="org/model",
            revision="r",
            device="cuda:0",
            precision="float32",
            excluded={"a": 'too -- long, "quoted", é'},
            measured={"seconds": 1.5},
        )
        written = write_table(FRAME, path, known)
        assert read_provenance(path) == written
        assert written == known.model_copy(update={"data_version": written.data_version})
        assert read_table(path).equals(FRAME)
        assert read_table(path).schema == FRAME.schema  # ids stay in dataset order, those without a row too

    def test_the_provenance_of_changed_rows_is_not_believed(self, path: Path) -> None:
        assert read_provenance(path).data_version == data_version(FRAME, Provenance())
        content = bytearray(path.read_bytes())
        content[4:24] = bytes(20)  # the first rows
        path.write_bytes(content)
        with pytest.raises(TableError, match="its bytes are not those that were written"):
            read_provenance(path)

    def test_unknown_provenance_of_a_later_version_is_passed_over(self, tmp_path: Path) -> None:
        path = tmp_path / "table.parquet"
        version = data_version(FRAME, Provenance())
        known = {"fingerprint": "f", "invented_later": 1, "data_version": version}
        FRAME.write_parquet(path, metadata={"gradsim": json.dumps(known)})
        assert read_provenance(path).fingerprint == "f"

    def test_nothing_is_left_of_a_write_that_failed(self, path: Path) -> None:
        before = path.read_bytes()
        with suppress(KeyboardInterrupt), atomic_path(path) as partial:
            partial.write_text("half")
            raise KeyboardInterrupt
        assert path.read_bytes() == before
        assert names(path.parent) == [path.name]

    def test_a_partial_file_is_hidden_and_no_table(self, path: Path) -> None:
        with atomic_path(path) as partial:
            partial.write_text("half")
            assert partial.parent == path.parent  # on the same disk, so that renaming is all or nothing
            assert list(path.parent.glob("*.parquet")) == [path]
            assert pl.scan_parquet(path.parent / "*.parquet").collect().equals(FRAME)
        assert names(path.parent) == [path.name]
        assert path.read_text() == "half"

    def test_two_writers_do_not_meet(self, path: Path) -> None:
        with atomic_path(path) as one, atomic_path(path) as two:
            assert one != two
            one.write_text("one")
            two.write_text("two")
        assert path.read_text() == "one"  # renamed last

    def test_a_read_only_folder(self, read_only: Path) -> None:
        fix = "cannot be written (Permission denied); set GRADSIM_DATA to a folder that you can write"
        with ordinary_user():
            with pytest.raises(TableError) as caught:
                write_table(FRAME, read_only / "table.parquet", Provenance())
            assert str(caught.value) == f"{read_only}: {fix}"
            with pytest.raises(TableError) as caught:
                write_table(FRAME, read_only / "study/table.parquet", Provenance())
            assert str(caught.value) == f"{read_only / 'study'}: {fix}"
        assert names(read_only) == []

    def test_a_file_in_the_place_of_the_folder(self, tmp_path: Path) -> None:
        (tmp_path / "data").write_text("a file")
        with pytest.raises(TableError) as caught:
            write_table(FRAME, tmp_path / "data/study/table.parquet", Provenance())
        reason = "cannot be written (Not a directory); set GRADSIM_DATA to a folder that you can write"
        assert str(caught.value) == f"{tmp_path / 'data/study'}: {reason}"

    def test_a_full_disk(self, tmp_path: Path) -> None:
        disk = tmp_path / "disk"
        disk.mkdir()
        mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)]
        if subprocess.run(mount, capture_output=True, check=False).returncode:
            pytest.skip("a full disk needs the right to mount a small one")
        try:
            path = disk / "table.parquet"
            write_table(FRAME, path, Provenance())
            large = pl.DataFrame({"value": range(100_000)}).with_columns(pl.col("value").hash())
            with pytest.raises(TableError) as caught:
                write_table(large, path, Provenance())
            reason = "cannot be written (No space left on device); make room or set GRADSIM_DATA to another disk"
            assert str(caught.value) == f"{disk}: {reason}"
            assert names(disk) == [path.name]
            assert read_table(path).equals(FRAME)
        finally:
            subprocess.run(["umount", disk], check=True)

    def test_a_fault_of_ours_is_not_called_the_disk_s(self, tmp_path: Path) -> None:
        with pytest.raises(pl.exceptions.ComputeError), atomic_path(tmp_path / "table.parquet"):
            raise pl.exceptions.ComputeError("not of the system")


class TestReading:
    @pytest.mark.parametrize("read", [read_table, read_provenance])
    def test_a_missing_file(self, tmp_path: Path, read) -> None:
        path = tmp_path / "table.parquet"
        with pytest.raises(TableError) as caught:
            read(path)
        assert str(caught.value) == f"{path}: does not exist; create it with gradsim run"

    @pytest.mark.parametrize("read", [read_table, read_provenance])
    @pytest.mark.parametrize("damage", ["empty", "cut", "text", "half the footer"])
    def test_a_damaged_file(self, path: Path, read, damage: str) -> None:
        content = path.read_bytes()
        damaged = {"empty": b"", "cut": content[:-1], "text": b"not a table", "half the footer": content[-20:]}[damage]
        path.write_bytes(damaged)
        with pytest.raises(TableError, match=rf"^{path}: not a readable table \(.+\); delete it and run again$"):
            read(path)

    def test_a_file_that_gradsim_did_not_write(self, tmp_path: Path) -> None:
        path = tmp_path / "table.parquet"
        FRAME.write_parquet(path)
        message = f"{path}: not a readable table ('gradsim'); delete it and run again"
        with pytest.raises(TableError, match=f"^{re.escape(message)}$"):
            read_provenance(path)

    def test_a_file_of_which_bytes_are_wrong_is_an_error_or_read(self, path: Path) -> None:
        """Some damage makes the reader panic; a user sees one line all the same."""
        content, chance, messages = path.read_bytes(), random.Random(0), list[str]()
        for _ in range(300):
            damaged = bytearray(content)
            damaged[chance.randrange(len(damaged))] = chance.randrange(256)
            path.write_bytes(damaged)
            for read in (read_provenance, read_table):
                try:
                    read(path)
                except TableError as error:
                    messages.append(str(error))
        assert len(messages) > 100
        assert not any("\n" in message for message in messages)


texts = st.none() | st.text(max_size=30)
rows = st.lists(
    st.tuples(
        st.sampled_from(["a", "b", "c"]),
        st.none() | st.floats(allow_nan=False).map(lambda value: value + 0.0),  # -0.0 equals 0.0
        st.none() | st.lists(st.integers(0, 9), max_size=3),
        st.none() | st.lists(st.tuples(texts, texts), max_size=2),
        st.none() | st.booleans(),
    ),
    max_size=6,
)


def frame(values: list[tuple]) -> pl.DataFrame:
    turns = [
        (*plain, None if pairs is None else [{"role": role, "content": text} for role, text in pairs], flag)
        for *plain, pairs, flag in values
    ]
    schema = {
        "id": pl.Enum(["a", "b", "c"]),
        "value": pl.Float64(),
        "tokens": pl.List(pl.Int32),
        "messages": pl.List(pl.Struct({"role": pl.String, "content": pl.String})),
        "flag": pl.Boolean(),
    }
    return pl.DataFrame(turns, schema=schema, orient="row")


def version(rows: pl.DataFrame, **known: str) -> str:
    return data_version(rows, Provenance(**known))


class TestDataVersion:
    @given(rows, rows)
    def test_equal_rows_have_one_version_however_they_came_to_be(self, some: list, others: list) -> None:
        whole = frame(some)
        longer = pl.concat([frame(others), whole, frame(others)])
        same = {
            "cut out": longer.slice(len(others), len(some)),
            "chosen": longer.with_row_index().filter(
                pl.col("index").is_between(len(others), len(others) + len(some) - 1)
            ),
            "in pieces": pl.concat([whole[:1], whole[1:]], rechunk=False),
        }
        for name, each in same.items():
            assert version(each.drop("index", strict=False)) == version(whole), name

    @given(rows)
    def test_stored_rows_have_the_version_that_was_written(self, values: list) -> None:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "table.parquet"
            written = write_table(frame(values), path, Provenance())
            assert written.data_version == version(read_table(path)) == version(frame(values))

    @given(rows, rows)
    def test_other_rows_have_another_version(self, some: list, others: list) -> None:
        one, two = frame(some), frame(others)
        assert one.equals(two) == (version(one) == version(two))

    def test_what_else_tells_versions_apart(self) -> None:
        known = version(FRAME)
        assert version(FRAME, fingerprint="f", device="cuda:0", created="then") == known
        assert version(FRAME, revision="another model's") != known
        assert version(FRAME.rename({"value": "other"})) != known
        assert version(FRAME.with_columns(pl.col("id").cast(pl.Enum(["a", "b"])))) != known
        assert version(FRAME.with_columns(pl.col("tokens").cast(pl.List(pl.Int64)))) != known
        assert version(FRAME.reverse()) != known
