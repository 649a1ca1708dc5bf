"""Partition jobs on this machine, each in a process of its own."""

import os
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import dagster as dg
from pydantic import ValidationError

from gradsim.environment import JOB_VARIABLES
from gradsim.partition_job import JobResult, PartitionJob, result_path
from gradsim.tables.files import locked_folder
from resources.compute import ComputeResource, Performed
from resources.job_server import JobServer
from resources.messages import LocalMessageReader

JOB_MODULE = "gradsim.partition_job"

_FOLDER = "gradsim-job-"

# How long an unlocked folder is kept: that of a job of an earlier version has no lock, nor one just being created.
_SECONDS_TO_KEEP = 24 * 3600

_server: JobServer | None = None


def job_server() -> JobServer:
    """Return this process's job server; start one if none is running."""
    global _server  # noqa: PLW0603
    if _server is None or not _server.is_running():
        _server = JobServer({**JOB_VARIABLES, **os.environ})
    return _server


class LocalCompute(ComputeResource):
    """Runs partition jobs in forked processes on this machine, connected through Dagster Pipes."""

    @property
    def is_here(self) -> bool:
        """Always true."""
        return True

    def perform(self, context: dg.AssetExecutionContext, job: PartitionJob) -> Performed:
        """Run a job in its own process and wait until it exits."""
        with _job_folder() as folder:
            path = folder / "job.json"
            path.write_text(job.model_dump_json(), encoding="utf-8")
            status = self._run_process(context, path)
            result = _read_result(path)
        return Performed(result, _explained(status) if status or result is None else None)

    def _run_process(self, context: dg.AssetExecutionContext, path: Path) -> int:
        """Return the exit status of the job's process; the negative signal number if a signal killed it."""
        with dg.open_pipes_session(
            context=context,
            context_injector=dg.PipesTempFileContextInjector(),
            message_reader=LocalMessageReader(path.parent, context.log),
        ) as pipes:
            variables = {**JOB_VARIABLES, **os.environ, **pipes.get_bootstrap_env_vars()}
            return job_server().run([JOB_MODULE, str(path)], variables)


@contextmanager
def _job_folder() -> Iterator[Path]:
    """Create a temporary folder that only this user can enter, locked during the block and removed at the end.

    Unlocked folders in which nothing has changed for a day are removed first: their processes were killed. Those of
    other users and of other hosts stay; NFS grants no lock on a folder.
    """
    for left_behind in Path(tempfile.gettempdir()).glob(f"{_FOLDER}*"):
        with suppress(OSError):
            if left_behind.lstat().st_uid != os.geteuid():
                continue
            changed = max(path.stat().st_mtime for path in (left_behind, *left_behind.iterdir()))
            if time.time() - changed > _SECONDS_TO_KEEP:
                with locked_folder(left_behind) as is_abandoned:
                    if is_abandoned:
                        shutil.rmtree(left_behind)
    with tempfile.TemporaryDirectory(prefix=_FOLDER) as folder, locked_folder(Path(folder)):
        yield Path(folder)


def _explained(status: int) -> str:
    if status >= 0:
        return f"it ended with exit status {status}; its output is in the step's stderr"
    if status == -signal.SIGKILL:
        return (
            "it was killed by SIGKILL, which usually means that the system ran out of memory: "
            "limit the memory for gradients (GRADSIM_MEMORY_BUDGET=4GiB), or make the study's partitions smaller"
        )
    return f"it was killed by {signal.Signals(-status).name}"


def _read_result(path: Path) -> JobResult | None:
    try:
        return JobResult.model_validate_json(result_path(path).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValidationError):
        return None
