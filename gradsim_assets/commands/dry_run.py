"""Batch scripts that a run would submit to a cluster."""

from collections.abc import Iterator, Sequence
from contextlib import suppress

from gradsim.errors import TableError
from gradsim.partition_job import PartitionJob
from gradsim.tables import State, TableKey
from gradsim_assets.assets.gradients import make_job
from gradsim_assets.commands.session import Session
from gradsim_assets.dispatch import compute_resource
from gradsim_assets.keys import job_op
from gradsim_assets.launch.targets import Launch
from gradsim_assets.terminal import console
from resources.slurm.client import PartitionJobClient
from resources.slurm.compute import at_site
from resources.slurm.connection import Connection
from resources.slurm.script import walltime
from resources.slurm.site import Site


def print_scripts(session: Session, launches: Sequence[Launch], *, force: bool) -> None:
    """Print the `sbatch` command and script of each job of these launches, without submitting anything.

    Raises:
        ClusterError: The site's settings are invalid, or the cluster cannot be reached for the user's home folder.
    """
    connection = Connection(Site.read(), console.print)
    site = connection.at_home(seconds=0)
    if session.store.state(session.store.lineage.key("model")) is not State.FRESH:
        console.print("\nbatch scripts can be shown once the dataset and the model are materialized (run 1)")
        return
    for number, launch in enumerate(launches, start=1):
        for job in _jobs(session, launch, force=force):
            client = PartitionJobClient(site, connection, walltime(job, site), console.print)
            there = at_site(job, site)
            sbatch, script = client.submission(there, there.identity, {})
            console.print(f"\n[bold]run {number}[/] submits to {site.queue}:")
            console.print(f"{sbatch}\n\n{script}", markup=False, soft_wrap=True)


def _jobs(session: Session, launch: Launch, *, force: bool) -> Iterator[PartitionJob]:
    """Yield the jobs of a launch; tables made by the same step share a job."""
    compute = compute_resource(session.environment)
    steps: dict[str, list[TableKey]] = {}
    for key in launch.keys:
        if op := job_op(session.study, key):
            steps.setdefault(op, []).append(key)
    for keys in steps.values():
        job = make_job(session.store, keys, launch.partitions or (None,), compute, force=force)
        with suppress(TableError):  # an input that an earlier step of the same run makes
            job = job.of_what_is_stored(session.store)
        yield job
