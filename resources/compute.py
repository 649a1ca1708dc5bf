"""The compute resource runs a partition job and returns its result, or the reason why it failed.

Assets do not depend on where the job runs: `resources.local` runs it on this machine, `resources.slurm` on a cluster.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import dagster as dg

from gradsim.partition_job import JobResult, PartitionJob
from gradsim.tables import State
from resources.failing import failing_plainly

# Retries, and seconds between them, of a job that failed through no fault of its own.
MOST_RETRIES, SECONDS_TO_RETRY = 3, 10


@dataclass(frozen=True)
class Performed:
    """The outcome of a job that has ended.

    Attributes:
        result: The job's result; None if it left no readable one.
        trouble: How the job ended, if it ended badly.
        worth_a_retry: Whether the same job may succeed if it is simply run again.
        metadata: Metadata for the step if it fails.
        used: Resource usage for the step's metadata if it succeeds.
    """

    result: JobResult | None
    trouble: str | None = None
    worth_a_retry: bool = False
    metadata: Mapping[str, Any] = field(default_factory=dict)
    used: Mapping[str, Any] = field(default_factory=dict)


class ComputeResource(dg.ConfigurableResource[None], ABC):
    """Runs partition jobs.

    The study file holds everything that affects results; this resource holds the rest.

    Attributes:
        device: Device of the model: `cpu`, `cuda`, `cuda:N`, or `auto` for the first GPU if there is one.
        memory_budget: Maximum number of bytes that gradients may use on the device; None for the free memory minus a
            margin.
    """

    device: str = "auto"
    memory_budget: int | None = None

    @property
    @abstractmethod
    def is_here(self) -> bool:
        """Whether jobs run on this machine, with its files and its model cache."""

    @abstractmethod
    def perform(self, context: dg.AssetExecutionContext, job: PartitionJob) -> Performed:
        """Run a job until it ends, and forward its messages and logs to the step.

        Raises:
            GradsimError: The job cannot be run with the current settings or inputs.
        """

    def run(self, context: dg.AssetExecutionContext, job: PartitionJob) -> JobResult:
        """Run a job until it ends and return its result, checked against the request.

        Raises:
            dagster.Failure: The job failed. The message gives the reason and, if there is one, the fix.
            dagster.RetryRequested: The job failed through no fault of its own.
        """
        with failing_plainly():
            performed = self.perform(context, job)
        result = performed.result
        if failure := failure_of(performed, job):
            if performed.worth_a_retry:
                raise dg.RetryRequested(MOST_RETRIES, SECONDS_TO_RETRY) from failure
            raise failure
        assert result is not None
        if fault := _output_fault(job):
            raise dg.Failure(fault, allow_retries=False)
        return result.model_copy(update={"measured": {**result.measured, **performed.used}})


def failure_of(performed: Performed, job: PartitionJob) -> dg.Failure | None:
    """Return the failure for a job whose outcome cannot be accepted; None if it can."""
    why = _why_not(performed, job)
    if why is None:
        return None
    metadata = dict(performed.metadata)
    if performed.result and performed.result.traceback:
        metadata = {"traceback": dg.MetadataValue.md(f"```\n{performed.result.traceback}\n```"), **metadata}
    return dg.Failure(why, metadata, allow_retries=False)


def _output_fault(job: PartitionJob) -> str | None:
    """Return the first output that is not fresh, as a message: missing, damaged, or made from other inputs."""
    store = job.store()
    for key, partition in job.outputs:
        if (state := store.state(key, partition)) is not State.FRESH:
            return f"{store.path(key, partition)} is {state}, although the partition job ended well; run it again"
    return None


def _why_not(performed: Performed, job: PartitionJob) -> str | None:
    match performed.result:
        case None:
            return f"the partition job left no result: {performed.trouble}"
        case JobResult(error=str(error)) if error:
            return error
        case JobResult(traceback=str(traceback)) if traceback:
            return f"the partition job crashed: {traceback.strip().splitlines()[-1]}"
        case _ if performed.trouble:
            return f"the partition job failed after it had written its result: {performed.trouble}"
        case JobResult(partitions=job.partitions, fingerprints=job.fingerprints):
            return None
        case result:
            return f"the partition job's result does not match the request: {result}"
