"""How long a job may take."""

from datetime import timedelta

from gradsim.partition_job import PartitionJob
from resources.slurm.site import DEFAULT_WALLTIME, Site


def predicted_walltime(job: PartitionJob, site: Site) -> timedelta:
    """From measured rates."""
    return DEFAULT_WALLTIME
