"""The compute resource: runs a partition job somewhere, and brings back what it did or why it failed.

Assets do not know where that is: `resources.local` on this machine, `resources.slurm` on a cluster.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import dagster as dg

from gradsim.errors import GradsimError
from gradsim.partition_job import JobResult, PartitionJob

# How often a job is sent again that failed for no reason of its own, and after how long.
MOST_RETRIES, SECONDS_TO_RETRY = 3, 10


@dataclass(frozen=True)
class Performed:
    """A job that has ended.

    Attributes:
        result: what it left; None: nothing that can be read.
        trouble: how it ended, where that was not well.
        worth_a_retry: whether the same job may end well without anybody doing anything.
        metadata: what else is known of it, for a step that fails.
        used: what it used, for a step that succeeds.
    """

    result: JobResult | None
    trouble: str | None = None
    worth_a_retry: bool = False
    metadata: Mapping[str, Any] = field(default_factory=dict)
    used: Mapping[str, Any] = field(default_factory=dict)


class ComputeResource(dg.ConfigurableResource[None], ABC):
    """Runs partition jobs."""

    @property
    @abstractmethod
    def is_here(self) -> bool:
        """Whether they run on this machine, with what lies here."""

    @abstractmethod
    def perform(self, context: dg.AssetExecutionContext, job: PartitionJob) -> Performed:
        """Run a job to its end, passing on what it says.

        Raises:
            GradsimError: it cannot be run as things are.
        """

    def run(self, context: dg.AssetExecutionContext, job: PartitionJob) -> JobResult:
        """Run a job to its end; what it did was what was asked for.

        Raises:
            dagster.Failure: the job failed; says why, and how to mend it where a user can.
            dagster.RetryRequested: it failed for no reason of its own.
        """
        try:
            performed = self.perform(context, job)
        except GradsimError as error:
            raise dg.Failure(str(error), allow_retries=False) from error
        result = performed.result
        if failure := failure_of(performed, job):
            if performed.worth_a_retry:
                raise dg.RetryRequested(MOST_RETRIES, SECONDS_TO_RETRY) from failure
            raise failure
        assert result is not None
        return result.model_copy(update={"measured": {**result.measured, **performed.used}})


def failure_of(performed: Performed, job: PartitionJob) -> dg.Failure | None:
    """Why a job's outcome cannot be taken; None if it can."""
    why = _why_not(performed, job)
    if why is None:
        return None
    metadata = dict(performed.metadata)
    if performed.result and performed.result.traceback:
        metadata = {"traceback": dg.MetadataValue.md(f"```\n{performed.result.traceback}\n```"), **metadata}
    return dg.Failure(why, metadata, allow_retries=False)


def _why_not(performed: Performed, job: PartitionJob) -> str | None:
    match performed.result:
        case None:
            return f"the partition job left no result: {performed.trouble}"
        case JobResult(error=str(error)) if error:
            return error
        case JobResult(traceback=str(traceback)) if traceback:
            return f"the partition job broke: {traceback.strip().splitlines()[-1]}"
        case _ if performed.trouble:
            return f"the partition job broke after its work: {performed.trouble}"
        case JobResult(partitions=job.partitions, fingerprints=job.fingerprints):
            return None
        case result:
            return f"the partition job's result is not what was asked for: {result}"
