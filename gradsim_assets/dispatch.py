"""How steps that run partition jobs are dispatched: where, how many at a time, how many partitions in one."""

from dataclasses import dataclass

import dagster as dg

from gradsim.environment import Environment
from resources import slurm
from resources.compute import ComputeResource
from resources.local import LocalCompute

LOCAL_POOL, SLURM_POOL = "local_jobs", "slurm_jobs"


@dataclass(frozen=True)
class Dispatch:
    """What the steps of partition jobs have in common.

    Attributes:
        pool: whose slots they take, so that a long backfill floods neither this machine nor a cluster's queue.
        partitions_per_job: how many partitions go into one run, and so into one job and one model load; None: all.
    """

    pool: str = LOCAL_POOL
    partitions_per_job: int | None = None

    @classmethod
    def of(cls, environment: Environment) -> "Dispatch":
        """As the environment says."""
        pool = SLURM_POOL if environment.compute == "slurm" else LOCAL_POOL
        return cls(pool, environment.partitions_per_job)

    @property
    def backfill_policy(self) -> dg.BackfillPolicy:
        """All partitions that are asked for in one run, or so many in each."""
        if self.partitions_per_job is None:
            return dg.BackfillPolicy.single_run()
        return dg.BackfillPolicy.multi_run(self.partitions_per_job)


def compute_resource(environment: Environment) -> ComputeResource:
    """Where partition jobs run."""
    if environment.compute == "slurm":
        return slurm.SlurmCompute()
    return LocalCompute()


def set_pool_limits(instance: dg.DagsterInstance, environment: Environment) -> None:
    """Jobs of a pool that may run at a time: one here, as many as the environment says on a cluster."""
    storage = instance.event_log_storage
    storage.set_concurrency_slots(LOCAL_POOL, 1)
    storage.set_concurrency_slots(SLURM_POOL, environment.concurrent_jobs)
