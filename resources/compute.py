"""The compute resource: runs a partition job, and brings back what it did or why it failed.

Assets do not know where that happens. Here it is a subprocess: a crash or an out-of-memory kill ends the job, not
the step.
"""

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import dagster as dg
from pydantic import ValidationError

from gradsim.partition_job import JobResult, PartitionJob, result_path
from resources.messages import WholeLineMessageReader
from resources.processes import end


class ComputeResource(dg.ConfigurableResource[None]):
    """Runs partition jobs in subprocesses of this machine, connected by Dagster's pipes."""

    def run(self, context: dg.AssetExecutionContext, job: PartitionJob) -> JobResult:
        """Run a job to its end.

        Raises:
            dagster.Failure: the job failed; says why, and how to mend it where a user can.
        """
        with tempfile.TemporaryDirectory(prefix="gradsim-job-") as folder:
            path = Path(folder) / "job.json"
            path.write_text(job.model_dump_json(), encoding="utf-8")
            status = self._run_process(context, path)
            result = _read_result(path)
        if result is None:
            raise dg.Failure(f"the partition job left no result: {_explained(status)}")
        if result.error:
            raise dg.Failure(result.error, allow_retries=False)
        if result.traceback:
            last_line = result.traceback.strip().splitlines()[-1]
            trace = dg.MetadataValue.md(f"```\n{result.traceback}\n```")
            raise dg.Failure(f"the partition job broke: {last_line}", metadata={"traceback": trace})
        if status:
            raise dg.Failure(f"the partition job broke after its work: {_explained(status)}")
        if (result.partitions, result.fingerprints) != (job.partitions, job.fingerprints):
            raise dg.Failure(f"the partition job's result is not what was asked for: {result}")
        return result

    def _run_process(self, context: dg.AssetExecutionContext, path: Path) -> int:
        """The exit status of the job's process; minus the signal's number where one killed it."""
        with dg.open_pipes_session(
            context=context,
            context_injector=dg.PipesTempFileContextInjector(),
            message_reader=WholeLineMessageReader(),
        ) as pipes:
            process = subprocess.Popen(
                [sys.executable, "-m", "gradsim.partition_job", str(path), "--parent", str(os.getpid())],
                env={**os.environ, **pipes.get_bootstrap_env_vars()},
            )
            try:
                return process.wait()
            finally:
                # Only an interrupted wait leaves it running.
                if process.poll() is None:
                    end([process])


def _explained(status: int) -> str:
    if status >= 0:
        return f"it ended with exit status {status}; its output is in the step's stderr"
    if status == -signal.SIGKILL:
        return (
            "it was killed by SIGKILL, as the system does when memory runs out: "
            "bound what gradients may take (GRADSIM_MEMORY_BUDGET=4GiB), or make the study's partitions smaller"
        )
    return f"it was killed by {signal.Signals(-status).name}"


def _read_result(path: Path) -> JobResult | None:
    try:
        return JobResult.model_validate_json(result_path(path).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValidationError):
        return None
