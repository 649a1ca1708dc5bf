"""Partition jobs on a Slurm cluster."""

from dataclasses import replace
from pathlib import Path

import dagster as dg
from dagster_slurm import SlurmMetric

from gradsim.partition_job import JobResult, PartitionJob
from resources.compute import ComputeResource, Performed, failure_of
from resources.slurm.client import SECONDS_TO_SUBMIT, PartitionJobClient
from resources.slurm.connection import Connection
from resources.slurm.failures import explain
from resources.slurm.files import RemoteFiles, wait_until_seen
from resources.slurm.job_state import LOG_LINES, JobEnd
from resources.slurm.script import walltime
from resources.slurm.site import Site

# Metrics of Slurm's accounting that the step's metadata show.
SHOWN_METRICS = (
    SlurmMetric.ELAPSED_SECONDS,
    SlurmMetric.CPU_EFFICIENCY,
    SlurmMetric.MAX_MEMORY,
    SlurmMetric.STATE,
    SlurmMetric.ALLOCATED_GPUS,
    SlurmMetric.GPU_UTILIZATION_AVG,
    SlurmMetric.GPU_MEMORY_MAX,
)


class SlurmCompute(ComputeResource):
    """Runs partition jobs on the cluster that the environment names (`SLURM_...`)."""

    @property
    def is_here(self) -> bool:
        """Always false: jobs run on a node, which loads the model from its own cache."""
        return False

    def perform(self, context: dg.AssetExecutionContext, job: PartitionJob) -> Performed:
        """Submit a job or attach to a live one, wait until it ends, and make its results available here.

        A job without any work to do is not submitted.

        Raises:
            ClusterError: The cluster cannot be used with the current settings.
            TableError: A result cannot be written here.
        """
        if not (job.force or job.work(job.store())):
            return Performed(JobResult(partitions=job.partitions, fingerprints=job.fingerprints))
        return self.perform_there(context, job)

    def perform_there(self, context: dg.AssetExecutionContext, job: PartitionJob) -> Performed:
        """Run a job as `perform` does, even if it has no work to do."""
        connection = Connection(Site.read(), context.log.info)
        site = connection.at_home(seconds=SECONDS_TO_SUBMIT)
        data = site.data(job.root)
        there = at_site(job, site)
        identity = there.identity
        if job.force:  # one of its own for each run, shared with the run's retries
            identity += f"-{(context.run.root_run_id or context.run.run_id).split('-')[0]}"
        files = None if site.shared_data else RemoteFiles(connection, data)
        if files:
            files.send_inputs(job, context.log.info)
        client = PartitionJobClient(site, connection, walltime(job, site), context.log.info)
        end = client.run(context=context, job=there, identity=identity)
        performed = _performed(end, str(site.job_folder(identity)))
        if failure_of(performed, there) is None:
            try:
                if files:
                    files.fetch_results(job, context.log.info)
                else:
                    wait_until_seen(job, data)
            finally:
                # Also if fetching failed: the next run then computes the results again.
                client.mark_taken(identity)
        return performed


def at_site(job: PartitionJob, site: Site) -> PartitionJob:
    """Return the job with the data root, model path and device that a node of the site uses."""
    data = site.data(job.root)

    def moved(name: str) -> str:
        return str(data / Path(name).relative_to(job.root).as_posix()) if Path(name).is_relative_to(job.root) else name

    adapter = job.model.adapter and moved(job.model.adapter)
    model = replace(job.model, name=moved(job.model.name), adapter=adapter, device=site.device)
    return job.model_copy(update={"root": Path(data), "model": model})


def _performed(end: JobEnd, folder: str) -> Performed:
    used = end.metrics.to_metadata(SHOWN_METRICS) if end.metrics else {"slurm_job_id": end.job_id}
    spoke = end.result is not None and (end.result.error or end.result.traceback)
    explanation = None if spoke or (end.result and end.exit_status == 0) else explain(end)
    said = {
        "slurm_job_id": end.job_id,
        "slurm_state": end.state or "unknown",
        "slurm_node": end.node or "unknown",
        "job_folder": folder,
        **used,
        f"last_{LOG_LINES}_lines_of_the_log": dg.MetadataValue.md(f"```\n{end.log}\n```"),
    }
    return Performed(
        end.result,
        explanation.text if explanation else None,
        worth_a_retry=explanation is not None and explanation.retry,
        metadata=said,
        used=used,
    )
