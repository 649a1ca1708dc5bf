"""The script that submits a job, run by a shell as the login node runs it, beside stand-ins for Slurm's commands."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from resources.slurm.client import _submit_command
from resources.slurm.connection import _in_bash
from resources.slurm.job_state import TAKEN
from resources.slurm.script import JOB_FILE, SCRIPT, archive


@pytest.fixture
def submit(site_of, tmp_path: Path) -> Callable[[], Path]:
    """Submits a job without a umask, and gives its folder."""
    commands, interpreter = tmp_path / "commands", tmp_path / "environment/bin/python"
    for path, text in {commands / "squeue": "", commands / "sbatch": "umask > umask; echo 17"}.items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/bin/bash\n{text}\n")
        path.chmod(0o755)
    interpreter.parent.mkdir(parents=True)
    interpreter.symlink_to(sys.executable)
    site = site_of(SLURM_REMOTE_BASE=str(tmp_path / "base"), SLURM_ENVIRONMENT=str(tmp_path / "environment"))

    def submit() -> Path:
        done = subprocess.run(
            _in_bash(_submit_command(site, "0123", "sbatch")),
            shell=True,
            input=archive({JOB_FILE: b"{}", SCRIPT: b"true"}),
            env={"PATH": f"{commands}:{os.environ['PATH']}"},
            umask=0,
            capture_output=True,
            check=True,
        )
        assert (done.stdout, done.stderr) == (b"submitted 17\n", b"")
        return Path(site.job_folder("0123"))

    return submit


def test_a_jobs_folder_is_private_whatever_the_umask(submit: Callable[[], Path]) -> None:
    folder = submit()
    assert folder.stat().st_mode & 0o777 == 0o700
    modes = {path.name: path.stat().st_mode & 0o777 for path in folder.iterdir()}
    assert modes == dict.fromkeys((JOB_FILE, SCRIPT, "lock", "job_id", "umask"), 0o600)
    assert (folder / "umask").read_text() == "0077\n", "Slurm runs a job with the umask of its sbatch"


def test_folders_are_removed_a_day_after_their_results_were_fetched(submit: Callable[[], Path]) -> None:
    others = {name: submit().parent / name for name in ("one", "two", "fresh", "failed")}
    for name, folder in others.items():
        folder.mkdir()
        if name != "failed":
            (folder / TAKEN).touch()
        if name in {"one", "two"}:
            two_days_ago = time.time() - 2 * 24 * 3600
            os.utime(folder / TAKEN, (two_days_ago, two_days_ago))
    folder = submit()
    assert set(folder.parent.iterdir()) == {folder, others["fresh"], others["failed"]}
