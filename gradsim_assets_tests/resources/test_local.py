"""Folders of jobs on this machine: private, removed after the job, and swept after a process that was killed."""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from resources.local import _job_folder

pytestmark = pytest.mark.slow

NOBODY = 65534

HOLDER = """
import time
from resources.local import _job_folder
with _job_folder() as folder:
    (folder / "job.json").write_text("{}")
    print(folder, flush=True)
    time.sleep(600)
"""


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


@pytest.fixture
def hold(temporary: Path) -> Iterator[Callable[[], tuple["subprocess.Popen[str]", Path]]]:
    """Starts a process that has a job's folder, and gives both."""
    started = []

    def start() -> tuple["subprocess.Popen[str]", Path]:
        variables = {**os.environ, "TMPDIR": str(temporary)}
        process = subprocess.Popen([sys.executable, "-c", HOLDER], env=variables, stdout=subprocess.PIPE, text=True)
        started.append(process)
        assert process.stdout is not None
        return process, Path(process.stdout.readline().strip())

    yield start
    for process in started:
        process.kill()
        process.communicate()


def let_age(folder: Path) -> None:
    days_ago = time.time() - 2 * 24 * 3600
    for path in (*folder.iterdir(), folder):
        os.utime(path, (days_ago, days_ago))


def test_only_folders_of_killed_processes_are_swept(hold, temporary: Path) -> None:
    alive, its = hold()
    killed, left_behind = hold()
    let_age(its)
    let_age(left_behind)
    with _job_folder():
        assert left_behind.exists(), "its process is alive"
    killed.kill()
    killed.wait()
    with _job_folder() as folder:
        assert set(temporary.iterdir()) == {its, folder}
    assert alive.poll() is None
    alive.terminate()
    alive.wait()
    with _job_folder() as folder:
        assert set(temporary.iterdir()) == {folder}
    assert list(temporary.iterdir()) == []


def test_what_may_be_someone_elses_stays(temporary: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    new = temporary / "gradsim-job-of-an-earlier-version"
    new.mkdir()
    (new / "messages").touch()  # where its job, which may be alive, has just said something
    os.utime(new, (0, 0))
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (elsewhere / "precious").touch()
    link = temporary / "gradsim-job-link"
    link.symlink_to(elsewhere)
    let_age(elsewhere)
    stays = {new, link}
    if os.geteuid() == 0:
        others = temporary / "gradsim-job-others"
        others.mkdir()
        os.chown(others, NOBODY, NOBODY)
        let_age(others)
        stays.add(others)
    with _job_folder() as folder:
        assert set(temporary.iterdir()) == {*stays, folder}
    assert (elsewhere / "precious").exists()


def test_a_folder_is_private_whatever_the_umask(temporary: Path) -> None:
    umask = os.umask(0)
    try:
        with _job_folder() as folder:
            assert folder.parent == temporary
            assert folder.stat().st_mode & 0o777 == 0o700
    finally:
        os.umask(umask)
