"""Stored bytes are not believed: a changed file is corrupt, and its values are never used."""

import itertools
import random
import shutil
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from gradsim.errors import TableError
from gradsim.tables import Provenance, State, Store, TableKey
from gradsim.tables.index import IndexFile, IndexHeader, index_writer
from gradsim.tables.seal import verify
from gradsim_assets_tests.gradsim.tables.conftest import stored_places

Stored = tuple[TableKey, str | None]
FLIPS = 400


def flip(path: Path, bit: int) -> None:
    content = bytearray(path.read_bytes())
    content[bit // 8] ^= 1 << bit % 8
    path.write_bytes(content)


def test_one_flipped_bit_is_found(filled: Store) -> None:
    """Bits of all files, chosen at random; each file is as likely as any other."""
    choose = random.Random(0)
    for _ in range(FLIPS):
        key, partition = choose.choice(stored_places(filled))
        path = filled.path(key, partition)
        good = path.read_bytes()
        flip(path, bit := choose.randrange(8 * len(good)))
        assert filled.state(key, partition) is State.CORRUPT, (path, bit)
        with pytest.raises(TableError, match="not a readable table"):
            filled.read(key, [partition]) if path.suffix == ".parquet" else filled.provenance(key, partition)
        path.write_bytes(good)
        assert filled.state(key, partition) is State.FRESH


def test_truncated_files_are_found(filled: Store) -> None:
    choose = random.Random(1)
    for key, partition in stored_places(filled):
        path = filled.path(key, partition)
        good = path.read_bytes()
        path.write_bytes(good[: choose.randrange(len(good))])
        assert filled.state(key, partition) is State.CORRUPT, path
        path.write_bytes(good)


def test_other_rows_under_the_same_footer_are_found(filled: Store) -> None:
    for key, partition in stored_places(filled):
        path = filled.path(key, partition)
        if path.suffix == ".parquet" and (rows := filled.read(key, [partition])).height > 1:
            good, footer = path.read_bytes(), pq.read_metadata(path).metadata[b"gradsim"].decode()
            rows.reverse().write_parquet(path, metadata={"gradsim": footer})
            assert filled.state(key, partition) is State.CORRUPT, path
            path.write_bytes(good)


def test_a_file_knows_its_name(filled: Store) -> None:
    """Every pair of partitions of a table, and of tables of a setting, is swapped."""
    groups: dict[str, list[Stored]] = {}
    for key, partition in stored_places(filled):
        groups.setdefault(f"{filled.path(key, partition).suffix} {key.setting}", []).append((key, partition))
    pairs = [pair for group in groups.values() for pair in itertools.combinations(group, 2)]
    assert len(pairs) > 500
    for one, two in random.Random(2).sample(pairs, 200):
        path = filled.path(*one)
        good = path.read_bytes()
        shutil.copyfile(filled.path(*two), path)
        assert filled.state(*one) is State.CORRUPT, (one, two)
        path.write_bytes(good)
    key = filled.lineage.key("dot_products", "paraphrased")
    shutil.copyfile(filled.path(key, "0000-0001"), filled.path(key, "0002-0003"))
    with pytest.raises(TableError, match=r"contains paraphrased/dot_products/0000-0001; delete it and run again$"):
        filled.read(key)


def test_index_files_are_sealed(tmp_path: Path) -> None:
    path = tmp_path / "index.arrow"
    header = IndexHeader(projection="p", dimensions={"a": 3, "b": 2}, stored_format="float16")
    with index_writer(path, header, Provenance()) as writer:
        writer.add("s", np.arange(5.0))
    with IndexFile(path) as file:
        assert file.rows == 1
    good = path.read_bytes()
    for bit in random.Random(3).sample(range(8 * len(good)), 200):
        flip(path, bit)
        with pytest.raises(TableError):
            IndexFile(path)
        path.write_bytes(good)


def test_files_without_a_seal_are_believed(filled: Store) -> None:
    """They were written before there were seals and names."""
    key = filled.lineage.key("dot_products", "paraphrased")
    path = filled.path(key, "0000-0001")
    rows, provenance = filled.read(key, ["0000-0001"]), filled.provenance(key, "0000-0001")
    old = provenance.model_dump_json(exclude={"table", "partition"})
    rows.write_parquet(path, metadata={"gradsim": old})
    assert filled.state(key, "0000-0001") is State.FRESH
    assert filled.read(key, ["0000-0001"]).equals(rows)


def test_a_file_that_knows_its_name_has_a_seal(filled: Store) -> None:
    """Damage to the name of the seal does not turn it into an old file."""
    key = filled.lineage.key("samples")
    path = filled.path(key)
    path.write_bytes(path.read_bytes().replace(b'"seal":', b'"seil":'))
    assert filled.state(key) is State.CORRUPT


def test_a_change_right_after_reading_is_found(filled: Store) -> None:
    """The times of files have steps."""
    key = filled.lineage.key("samples")
    for bit in range(0, 400, 8):
        assert filled.state(key) is State.FRESH
        flip(filled.path(key), bit)
        assert filled.state(key) is State.CORRUPT
        flip(filled.path(key), bit)


def test_a_file_that_has_not_changed_is_not_read_again(filled: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    path = filled.path(filled.lineage.key("samples"))
    time.sleep(0.11)  # a file that was just written is read each time, since another change might not show
    verify(path)
    monkeypatch.setattr("gradsim.tables.seal._digest", lambda *_: pytest.fail("read again"))
    verify(path)


def test_pages_have_checksums_for_other_readers(filled: Store) -> None:
    path = filled.path(filled.lineage.key("dot_products", "paraphrased"), "0000-0001")
    assert pq.read_table(path, page_checksum_verification=True).num_rows
    numbers = pq.read_metadata(path).row_group(0).column(4)
    assert numbers.path_in_schema == "dot"
    flip(path, 8 * (numbers.data_page_offset + numbers.total_compressed_size - 1))
    with pytest.raises(OSError, match="CRC checksum verification failed"):
        pq.read_table(path, page_checksum_verification=True)
