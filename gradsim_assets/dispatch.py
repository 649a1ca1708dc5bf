"""Dispatch of partition jobs: where they run, how many run at a time, and how many partitions each computes."""

from dataclasses import dataclass

import dagster as dg

from gradsim.environment import Environment
from resources import slurm
from resources.compute import ComputeResource
from resources.local import LocalCompute

LOCAL_POOL, SLURM_POOL = "local_jobs", "slurm_jobs"


@dataclass(frozen=True)
class Dispatch:
    """Settings shared by all steps that run partition jobs.

    Attributes:
        pool: Concurrency pool, which keeps a long backfill from flooding this machine or a cluster's queue.
        partitions_per_job: Maximum number of partitions per run, and so per job and model load; None for all.
    """

    pool: str = LOCAL_POOL
    partitions_per_job: int | None = None

    @classmethod
    def of(cls, environment: Environment) -> "Dispatch":
        """Return the dispatch for an environment."""
        pool = SLURM_POOL if environment.compute == "slurm" else LOCAL_POOL
        return cls(pool, environment.partitions_per_job)

    @property
    def backfill_policy(self) -> dg.BackfillPolicy:
        """Backfill policy: all requested partitions in one run, or at most `partitions_per_job` in each."""
        if self.partitions_per_job is None:
            return dg.BackfillPolicy.single_run()
        return dg.BackfillPolicy.multi_run(self.partitions_per_job)


def compute_resource(environment: Environment) -> ComputeResource:
    """Return the compute resource for an environment: this machine or a Slurm cluster."""
    kind = slurm.SlurmCompute if environment.compute == "slurm" else LocalCompute
    return kind(device=environment.device, memory_budget=environment.memory_budget)


def set_pool_limits(instance: dg.DagsterInstance, environment: Environment) -> None:
    """Set how many jobs of each pool may run at a time: one on this machine, `GRADSIM_CONCURRENT_JOBS` on a cluster."""
    storage = instance.event_log_storage
    storage.set_concurrency_slots(LOCAL_POOL, 1)
    storage.set_concurrency_slots(SLURM_POOL, environment.concurrent_jobs)
