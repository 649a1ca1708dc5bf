"""Files that are written piece by piece: the same as written at once, whole or not at all, and never in memory."""

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import polars as pl
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradsim.tables import Provenance, read_provenance, write_table
from gradsim.tables.files import data_version, read_blocks, read_table
from gradsim.tables.validation import whole_runs
from gradsim.tables.writing import table_writer

SCHEMA = {
    "id": pl.Enum(["c", "a", "b"]),
    "text": pl.String(),
    "value": pl.Float64(),
    "tokens": pl.List(pl.Int32),
    "flag": pl.Boolean(),
}
FRAME = pl.DataFrame(
    [("a", "é", 1.5, [1, 2], True), (None, None, None, None, None), ("c", "", -0.5, [], False)], SCHEMA, orient="row"
)

frames = st.lists(
    st.tuples(
        st.sampled_from(["a", "b", "c"]),
        st.none() | st.text(max_size=5),
        st.none() | st.floats().map(lambda value: value + 0.0),  # -0.0 equals 0.0
        st.none() | st.lists(st.integers(0, 9), max_size=3),
        st.none() | st.booleans(),
    ),
    max_size=12,
).map(lambda rows: pl.DataFrame(rows, SCHEMA, orient="row"))


@contextmanager
def small_blocks(rows: int) -> Iterator[None]:
    """Few rows are as many as millions."""
    with pytest.MonkeyPatch.context() as patch:
        for module in ("digest", "writing", "files"):
            patch.setattr(f"gradsim.tables.{module}.BLOCK_ROWS", rows)
        yield


def write_in_pieces(path: Path, frame: pl.DataFrame, cuts: list[int]) -> Provenance:
    borders = [0, *sorted(min(cut, frame.height) for cut in cuts), frame.height]
    with table_writer(path, Provenance(created="then")) as writer:
        for start, stop in pairwise(borders):
            writer.add(frame[start:stop])
    return writer.provenance


class TestPieces:
    @given(frames, st.lists(st.integers(0, 12), max_size=5), st.integers(1, 5))
    def test_the_pieces_do_not_matter(self, frame: pl.DataFrame, cuts: list[int], block: int) -> None:
        with small_blocks(block), tempfile.TemporaryDirectory() as folder:
            whole, pieces = Path(folder) / "whole.parquet", Path(folder) / "pieces.parquet"
            written = write_table(frame, whole, Provenance(created="then"))
            assert write_in_pieces(pieces, frame, cuts) == written == read_provenance(pieces)
            assert pieces.read_bytes() == whole.read_bytes()
            assert read_table(pieces).schema == frame.schema
            assert read_table(pieces).equals(frame)
            assert written.data_version == data_version(read_table(pieces), Provenance())
            blocks = list(read_blocks(pieces))
            assert pl.concat(blocks).equals(frame)
            assert {each.height for each in blocks[:-1]} <= {block}

    @given(frames, frames, st.integers(1, 5))
    def test_other_rows_have_another_version(self, one: pl.DataFrame, other: pl.DataFrame, block: int) -> None:
        with small_blocks(block):
            assert one.equals(other) <= (data_version(one, Provenance()) == data_version(other, Provenance()))
            if one.height != other.height:
                assert data_version(one, Provenance()) != data_version(other, Provenance())

    def test_versions_of_files_that_exist_do_not_change(self) -> None:
        assert data_version(FRAME, Provenance()) == "c65c7f022939c32b"
        assert data_version(FRAME.clear(), Provenance(revision="r")) == "364b8897579d26ea"

    def test_other_columns_than_the_first_are_refused(self, tmp_path: Path) -> None:
        path = tmp_path / "table.parquet"
        with table_writer(path, Provenance()) as writer:
            writer.add(FRAME)
            with pytest.raises(ValueError, match="after rows of"):
                writer.add(FRAME.with_columns(pl.col("id").cast(pl.String)))
        assert read_table(path).equals(FRAME)

    def test_what_becomes_known_while_rows_come(self, tmp_path: Path) -> None:
        path = tmp_path / "table.parquet"
        with table_writer(path, Provenance(device="cpu")) as writer:
            writer.add(FRAME)
            writer.provenance = writer.provenance.model_copy(update={"excluded": {"a": "too long"}})
        assert read_provenance(path).excluded == {"a": "too long"}
        assert read_provenance(path).device == "cpu"


class TestWholeOrNotAtAll:
    def test_an_error_between_pieces(self, tmp_path: Path) -> None:
        path = tmp_path / "table.parquet"
        write_table(FRAME, path, Provenance())
        before = path.read_bytes()

        def write_some_and_fail() -> None:
            with table_writer(path, Provenance()) as writer:
                writer.add(FRAME)
                assert [each.stat().st_size > 0 for each in tmp_path.iterdir()] == [True, True], "a block is out"
                raise FileNotFoundError(2, "not of the disk that is written to")

        with small_blocks(2), pytest.raises(FileNotFoundError):
            write_some_and_fail()
        assert path.read_bytes() == before
        assert list(tmp_path.iterdir()) == [path]

    def test_what_a_killed_writer_left_is_removed_by_the_next(self, tmp_path: Path) -> None:
        path = tmp_path / "table[1].parquet"
        script = (
            "import sys, time, pathlib, polars as pl\n"
            "from gradsim.tables import Provenance\n"
            "from gradsim.tables.writing import table_writer\n"
            "with table_writer(pathlib.Path(sys.argv[1]), Provenance()) as writer:\n"
            "    writer.add(pl.DataFrame({'value': [1.0]}))\n"
            "    print('begun', flush=True)\n"
            "    time.sleep(60)\n"
        )
        process = subprocess.Popen([sys.executable, "-c", script, str(path)], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n"
        (left,) = tmp_path.iterdir()
        write_table(FRAME, path, Provenance())
        assert set(tmp_path.iterdir()) == {left, path}, "its writer is at work"
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()
        write_table(FRAME, path, Provenance())
        assert list(tmp_path.iterdir()) == [path]


def test_a_row_group_s_statistics_name_what_stands_in_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not all ids, though its dictionary knows them: readers can skip."""
    monkeypatch.setattr("gradsim.tables.writing.ROW_GROUP_ROWS", 100)
    ids = [f"s{position:02d}" for position in range(20)]
    frame = pl.DataFrame({"query_id": [each for each in ids for _ in range(50)]}, {"query_id": pl.Enum(ids)})
    frame = frame.with_columns(dot=pl.int_range(pl.len()).cast(pl.Float64))
    path = tmp_path / "table.parquet"
    write_table(frame, path, Provenance())
    metadata = pq.read_metadata(path)
    bounds = [metadata.row_group(group).column(0).statistics for group in range(metadata.num_row_groups)]
    assert [(each.min, each.max) for each in bounds] == [(ids[at], ids[at + 1]) for at in range(0, 20, 2)]
    assert metadata.row_group(0).column(0).compression == "ZSTD"
    assert metadata.row_group(0).column(0).has_dictionary_page
    assert "BYTE_STREAM_SPLIT" in metadata.row_group(0).column(1).encodings
    wanted = pl.col("query_id") == "s07"
    assert pl.scan_parquet(path).filter(wanted).collect().equals(frame.filter(wanted))


@given(st.lists(st.sampled_from("aab"), max_size=12), st.integers(1, 4))
def test_whole_runs(values: list[str], size: int) -> None:
    frame = pl.DataFrame({"key": values, "row": range(len(values))}, {"key": pl.String, "row": pl.Int64})
    runs = list(whole_runs(frame.iter_slices(size), ["key"]))
    assert pl.concat([frame.clear(), *runs]).equals(frame)
    for one, next_one in pairwise(runs):
        assert one["key"][-1] != next_one["key"][0]
    assert all(run.height <= 2 * max(size, len(values)) for run in runs)


MEASURE = """
import json, pathlib, resource, sys, time
import numpy as np, polars as pl
from gradsim.tables import Provenance
from gradsim.tables.writing import table_writer
ids, layers = pl.Enum([f"sample {n}" for n in range(2000)]), pl.Enum([f"layer.{n}" for n in range(100)])
keys = pl.DataFrame({"original_id": pl.Series(ids.categories, dtype=ids)})
keys = keys.join(pl.DataFrame({"layer": pl.Series(layers.categories, dtype=layers)}), how="cross")
dots = np.random.default_rng(0).normal(size=keys.height)
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
before, started = peak(), time.perf_counter()
with table_writer(pathlib.Path(sys.argv[1]), Provenance()) as writer:
    for query in range(int(sys.argv[2])):
        writer.add(keys.select(pl.lit(ids.categories[query], ids).alias("query_id"), "original_id", "layer", dot=dots))
print(json.dumps({"megabytes": peak() - before, "seconds": time.perf_counter() - started}))
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_rows(tmp_path: Path) -> None:
    path = tmp_path / "table.parquet"
    script = subprocess.run(
        [sys.executable, "-c", MEASURE, str(path), "100"], capture_output=True, text=True, check=True
    )
    measured = json.loads(script.stdout)
    assert pl.scan_parquet(path).select(pl.len()).collect().item() == 20_000_000  # 260 MB of values
    assert measured["megabytes"] < 200, measured
