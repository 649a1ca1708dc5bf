"""A real Slurm cluster on this machine, which each test that uses it finds idle."""

import contextlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

NOT_POSSIBLE_HERE = 3  # how scripts/slurm-lab ends where rights or programs are missing
LIMIT = 60.0  # seconds
LABS = ("lab", "lab_without_accounting")

FIELD = re.compile(r"([\w:/]+)=(.*?)(?= [\w:/]+=|$)")
VARIABLE = re.compile(r"export (\w+)=(.*)")


class Lab:
    """What tests do with a cluster, and to it."""

    def __init__(self, script: Path, folder: Path) -> None:
        self.script = script
        self.folder = folder

    @property
    def variables(self) -> dict[str, str]:
        """What a client has in its environment to get there."""
        return dict(VARIABLE.findall((self.folder / "env.sh").read_text(encoding="utf-8")))

    def run(self, *command: str) -> str:
        """What one of Slurm's commands writes."""
        environment = {**os.environ, "SLURM_CONF": f"{self.folder}/etc/slurm.conf"}
        try:
            done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=LIMIT, check=True)
        except subprocess.CalledProcessError as error:
            error.add_note(error.stderr)
            raise
        return done.stdout

    def submit(self, script: str, *options: str) -> str:
        """The id of a new job that runs a line of shell."""
        return self.run("sbatch", "--parsable", f"--chdir={self.folder}/work", *options, f"--wrap={script}").strip()

    def jobs(self) -> list[dict[str, str]]:
        """All jobs that the controller knows, also those that ended some minutes ago."""
        lines = self.run("scontrol", "show", "job", "--oneliner").splitlines()
        return [dict(FIELD.findall(line)) for line in lines if line.startswith("JobId=")]

    def job(self, identifier: str) -> dict[str, str]:
        """One job."""
        return next(job for job in self.jobs() if job["JobId"] == identifier)

    def wait_for(self, condition: Callable[[], bool], limit: float = LIMIT) -> None:
        """Wait until something comes true."""
        end = time.monotonic() + limit
        while not condition():
            assert time.monotonic() < end, self.run("scontrol", "show", "job", "--oneliner")
            time.sleep(0.1)

    def stop(self, daemon: str) -> None:
        """Stop one daemon: munged, mariadbd, slurmdbd, slurmctld, slurmd-lab1, slurmd-lab2 or sshd."""
        self.control("stop", "--only", daemon)

    def start(self, daemon: str) -> None:
        """Start one daemon again."""
        self.control("start", "--only", daemon)

    def kill_node(self, name: str) -> None:
        """End a node and its jobs as a power cut would."""
        self.control("stop", "--only", f"slurmd-{name}", "--kill")

    def wait_idle(self) -> None:
        """Cancel all jobs, and start what was stopped."""
        self.control("start")
        if running := self.run("squeue", "--noheader", "--format=%A").split():
            self.run("scancel", *running)
            self.wait_for(lambda: not self.run("squeue", "--noheader"))

    def control(self, command: str, *options: str) -> str:
        """What the lab's script writes."""
        try:
            return self.run(sys.executable, str(self.script), command, str(self.folder), *options)
        except subprocess.CalledProcessError as error:
            if error.returncode == NOT_POSSIBLE_HERE:
                pytest.skip(error.stderr.strip().replace("slurm-lab:", "Slurm lab:"))
            raise


@contextlib.contextmanager
def new_lab(project: Path, *options: str) -> Iterator[Lab]:
    """A lab for as long as it is needed."""
    folder = Path(tempfile.mkdtemp(prefix="lab-", dir="/tmp"))  # short: paths of unix sockets are limited
    lab = Lab(project / "scripts/slurm_lab", folder)
    try:
        lab.control("start", *options)
        yield lab
    finally:
        lab.control("stop", "--purge")
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def lab(project):
    with new_lab(project) as lab:
        yield lab


@pytest.fixture(scope="session")
def lab_without_accounting(project):
    with new_lab(project, "--no-accounting") as lab:
        yield lab


@pytest.fixture(autouse=True)
def labs_left_idle(request):
    labs = [request.getfixturevalue(name) for name in LABS if name in request.fixturenames]
    yield
    for each in labs:
        each.wait_idle()
