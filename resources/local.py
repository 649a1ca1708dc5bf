"""Partition jobs on this machine, in subprocesses: a crash or an out-of-memory kill does not end the step's process."""

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import dagster as dg
from pydantic import ValidationError

from gradsim.environment import JOB_VARIABLES
from gradsim.partition_job import JobResult, PartitionJob, result_path
from resources.compute import ComputeResource, Performed
from resources.messages import WholeLineMessageReader
from resources.processes import end


class LocalCompute(ComputeResource):
    """Runs partition jobs in subprocesses on this machine, connected through Dagster Pipes."""

    @property
    def is_here(self) -> bool:
        """Always true."""
        return True

    def perform(self, context: dg.AssetExecutionContext, job: PartitionJob) -> Performed:
        """Run a job in its own process and wait until it exits."""
        with tempfile.TemporaryDirectory(prefix="gradsim-job-") as folder:
            path = Path(folder) / "job.json"
            path.write_text(job.model_dump_json(), encoding="utf-8")
            status = self._run_process(context, path)
            result = _read_result(path)
        return Performed(result, _explained(status) if status or result is None else None)

    def _run_process(self, context: dg.AssetExecutionContext, path: Path) -> int:
        """Return the exit status of the job's process; the negative signal number if a signal killed it."""
        with dg.open_pipes_session(
            context=context,
            context_injector=dg.PipesTempFileContextInjector(),
            message_reader=WholeLineMessageReader(),
        ) as pipes:
            process = subprocess.Popen(
                [sys.executable, "-m", "gradsim.partition_job", str(path), "--parent", str(os.getpid())],
                env={**JOB_VARIABLES, **os.environ, **pipes.get_bootstrap_env_vars()},
            )
            try:
                return process.wait()
            finally:
                # The process is still running only if the wait was interrupted.
                if process.poll() is None:
                    end([process])


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
