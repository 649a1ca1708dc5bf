"""Runs of single jobs on a lab, each in a process of its own; and what tests without one put in its place."""

import json
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from gradsim.partition_job import PartitionJob
from gradsim.study import ModelConfiguration, Study
from gradsim.tables import TableKey
from gradsim_assets_tests.labs import Lab
from gradsim_assets_tests.programs import has_ended
from resources.job_server import JobServer
from resources.slurm.site import Site

# Stands in the way of the real partition job, and does what a test says.
STAND_IN = """
import json, os, signal, sys, time
from pathlib import Path
path = Path(sys.argv[1])
job = json.loads(path.read_text())
result = {"partitions": job["partitions"], "fingerprints": job["fingerprints"]}
def leave(**changes):
    path.with_suffix(".result.json").write_text(json.dumps(result | changes))
"""

LEAVE_PARTITION = "leave(measured={'partition': job['partitions'][0]})"


@dataclass
class Run:
    """A run of one job, which goes on in a process of its own."""

    process: int
    outcome_file: Path
    output: Path

    def outcome(self, seconds: float = 200) -> dict[str, Any]:
        """What came of it."""
        self._wait(seconds)
        assert self.outcome_file.exists(), self.output.read_text(encoding="utf-8")
        return json.loads(self.outcome_file.read_text(encoding="utf-8"))

    def end(self, number: signal.Signals) -> None:
        """Send the process a signal, and wait for its end."""
        os.kill(self.process, number)
        self._wait(60)

    def _wait(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while not has_ended(self.process):
            assert time.monotonic() < end, self.output.read_text(encoding="utf-8")
            time.sleep(0.02)


class Runs:
    """Runs jobs on a lab, from a folder of their own; their processes are forked from a server."""

    def __init__(self, server: JobServer, lab: Lab, folder: Path) -> None:
        self.server, self.lab, self.folder = server, lab, folder
        self._before = {job["JobId"] for job in lab.jobs()}
        self._count = 0
        (folder / "dagster").mkdir()
        with self.instance():  # made here: two runs that begin at the same time cannot both make it
            pass

    @property
    def job(self) -> PartitionJob:
        """One that writes no table, so that a stand-in can do it."""
        study = {
            "name": "tiny",
            "dataset": {"path": self.folder / "originals.jsonl"},
            "samples": 4,
            "model": {"reference": {}},
            "settings": {"word_dropout": {"method": "word_dropout"}},
            "partition_size": 2,
        }
        return PartitionJob(
            study=Study.model_validate(study),
            keys=(TableKey("tiny", "rates", "word_dropout"),),
            partitions=("0000-0001",),
            fingerprints={"rates": "0123456789abcdef"},
            root=self.folder / "data root",
            model=ModelConfiguration("a model"),
        )

    @property
    def variables(self) -> dict[str, str]:
        """Of a user whose own environment is that of the tests."""
        return {
            **{name: value for name, value in os.environ.items() if not name.startswith("SLURM_")},
            **self.lab.variables,
            "SLURM_ENVIRONMENT": sys.prefix,
            "SLURM_DATA": str(self.folder / "data root"),
            "SLURM_CPUS": "1",
            "SLURM_MEM": "300M",
            "SLURM_TIME": "00:10:00",
            "DAGSTER_HOME": str(self.folder / "dagster"),
            "DAGSTER_SLURM_SSH_CONTROL_DIR": str(self.lab.folder / "control"),
        }

    def start(
        self, behaviour: str = LEAVE_PARTITION, partition: str = "0000-0001", table: str = "rates", **variables: str
    ) -> Run:
        """Have a job of a partition run that does what is said."""
        self._count += 1
        folder = self.folder / f"run-{self._count}"
        package = folder / "gradsim" / "partition_job"
        package.mkdir(parents=True)
        for place in (package, package.parent):
            (place / "__init__.py").touch()
        (package / "__main__.py").write_text(f"{STAND_IN}\n{behaviour}\n", encoding="utf-8")
        job_file = folder / "asked.json"
        changes = {"partitions": (partition,), "keys": (TableKey("tiny", table, "word_dropout"),)}
        job_file.write_text(self.job.model_copy(update=changes).model_dump_json())
        setup = f"export PYTHONPATH='{folder}'"
        return self.drive("driver.py", str(job_file), folder / "outcome.json", **{"SLURM_SETUP": setup, **variables})

    def drive(self, driver: str, argument: str, outcome_file: Path, **variables: str) -> Run:
        """Start a driver of this folder."""
        id_file, output = outcome_file.with_suffix(".id"), outcome_file.with_suffix(".output")
        command = ["forked", str(id_file), str(output), str(Path(__file__).parent / driver), argument]
        assert self.server.run([*command, str(outcome_file)], {**self.variables, **variables}) == 0
        return Run(int(id_file.read_text(encoding="utf-8")), outcome_file, output)

    def run(self, behaviour: str = LEAVE_PARTITION, partition: str = "0000-0001", **variables: str) -> dict[str, Any]:
        """The same to its end."""
        return self.start(behaviour, partition, **variables).outcome()

    def submitted(self) -> dict[str, str]:
        """Number -> state of the jobs that were submitted here; what sbatch refuses Slurm remembers as failed."""
        return {
            job["JobId"]: job["JobState"]
            for job in self.lab.jobs()
            if job["JobId"] not in self._before and job["Reason"] != "BadConstraints"
        }

    def instance(self) -> dg.DagsterInstance:
        """The one that all runs share."""
        return dg.DagsterInstance.from_config(str(self.folder / "dagster"))

    def mark_runs_failed(self) -> None:
        """What Dagster does with runs whose process is gone."""
        with self.instance() as instance:
            for run in instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED])):
                instance.report_run_failed(run)

    def wait_for(self, state: str) -> str:
        """The number of the job that is in a state, when there is one."""

        def found() -> list[str]:
            return [number for number, each in self.submitted().items() if each == state]

        self.lab.wait_for(lambda: len(found()) == 1)
        return found()[0]


@pytest.fixture(scope="session")
def new_runs(new_server: Callable[..., JobServer]) -> Callable[[Lab, Path], Runs]:
    """Makes runs on a lab. Importing what drivers need takes longer than most of them."""
    return partial(Runs, new_server(imported=("dagster_slurm", "resources.slurm.compute")))


@pytest.fixture
def runs(new_runs, lab, tmp_path) -> Runs:
    return new_runs(lab, tmp_path)


@pytest.fixture
def stand_in(tmp_path, monkeypatch) -> Callable[[str, str], None]:
    """Puts a shell script in the place of a program."""
    folder = tmp_path / "programs"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")

    def write(program: str, script: str) -> None:
        path = folder / program
        path.write_text(f"#!/bin/bash\n{script}\n", encoding="utf-8")
        path.chmod(0o755)

    return write


@pytest.fixture
def site_of(tmp_path, monkeypatch) -> Callable[..., Site]:
    """Reads the site of some variables alone, whatever this machine's environment and `.env` say."""
    for name in list(os.environ):
        if name.startswith("SLURM_"):
            monkeypatch.delenv(name)
    monkeypatch.setattr("gradsim.environment.project_root", lambda: tmp_path)
    monkeypatch.setenv("DAGSTER_SLURM_SSH_CONTROL_DIR", str(tmp_path / "control"))

    def read(**variables: str) -> Site:
        needed = {"SLURM_SSH_HOST": "login.example.org", "SLURM_SSH_USER": "someone"}
        for name, value in {**needed, **variables}.items():
            monkeypatch.setenv(name, value)
        return Site.read()

    return read
