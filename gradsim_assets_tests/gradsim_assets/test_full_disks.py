"""Commands on a full disk: one line that names it, and nothing lost."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from gradsim_assets_tests.workplace import Workplace

pytestmark = pytest.mark.slow


@contextmanager
def small_disk(folder: Path) -> Iterator[None]:
    """Mount a disk of 8 MiB on a new folder."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder)]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("a full disk needs the right to mount a small one")
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def fill(folder: Path, left: int = 0) -> Path:
    """Fill a disk up to some bytes, and return the file to delete."""
    status, filler = os.statvfs(folder), folder / "filler"
    filler.write_bytes(b"x" * (status.f_bavail * status.f_bsize - left))
    return filler


def test_dagsters_storage_is_full(computed: Workplace) -> None:
    with small_disk(computed.home):
        computed.gradsim("run", "tiny")
        filler = fill(computed.home)
        computed.delete("tiny/word_dropout/analysis/accuracy.parquet")
        output = computed.gradsim("run", "tiny", fails=True)
        assert f"error: no space left in {computed.home}; free some and run again" in output
        assert "Traceback" not in output
        assert "missing" in computed.gradsim("status", "tiny")

        filler.unlink()
        computed.gradsim("run", "tiny")
    store = computed.store()
    assert store.read(store.lineage.key("accuracy", "word_dropout", "analysis")).height


def test_the_temporary_folder_is_full(computed: Workplace, tmp_path: Path) -> None:
    computed.delete("tiny/word_dropout/queries/*")
    with small_disk(temporary := tmp_path / "temporary"):
        fill(temporary, left=65536)  # Python looks for another temporary folder where it cannot write a byte
        process = computed.start("gradsim", "run", "tiny", TMPDIR=str(temporary))
        output, _ = process.communicate(timeout=240)
    assert process.returncode == 1
    assert f"no space left in {temporary}; free some and run again" in output
    assert "Traceback" not in output
