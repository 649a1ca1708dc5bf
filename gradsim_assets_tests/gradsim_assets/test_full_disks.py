"""Commands on a full disk: one line that names it, and nothing lost."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from gradsim_assets_tests.workplace import Workplace

pytestmark = pytest.mark.slow


@pytest.fixture
def full_home(computed: Workplace) -> Iterator[Path]:
    """The folder of the Dagster instance on a disk of its own, which is full after a first command."""
    computed.home.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(computed.home)]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("a full disk needs the right to mount a small one")
    try:
        computed.gradsim("run", "tiny")
        status = os.statvfs(computed.home)
        filler = computed.home / "filler"
        filler.write_bytes(b"x" * (status.f_bavail * status.f_bsize))
        yield filler
    finally:
        subprocess.run(["umount", str(computed.home)], check=True)


def test_dagsters_storage_is_full(computed: Workplace, full_home: Path) -> None:
    computed.delete("tiny/word_dropout/analysis/accuracy.parquet")
    output = computed.gradsim("run", "tiny", fails=True)
    assert f"error: no space left in {computed.home}; free some and run again" in output
    assert "Traceback" not in output
    assert "missing" in computed.gradsim("status", "tiny")

    full_home.unlink()
    computed.gradsim("run", "tiny")
    store = computed.store()
    assert store.read(store.lineage.key("accuracy", "word_dropout", "analysis")).height
