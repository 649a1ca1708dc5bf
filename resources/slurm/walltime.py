"""The walltime that a job requests, predicted from rates measured on the site, with a margin."""

from datetime import timedelta

from gradsim.forecast.job import Question, predicted_seconds
from gradsim.partition_job import PartitionJob
from gradsim.tables.rates import read_site_rates
from resources.slurm.site import Site

# Used without measured rates, and for kinds of jobs that have no prediction.
DEFAULT_WALLTIME = timedelta(hours=4)

# Time that the prediction leaves out: loading the model from a cold disk, checking the gradient rules.
_START = timedelta(minutes=10)

# Nodes are shared and differ in speed.
_MARGIN = 3


def walltime(job: PartitionJob, site: Site) -> timedelta:
    """Return the walltime that a job requests if `SLURM_TIME` is not set: predicted, or else the default.

    Raises:
        GradsimError: The job's inputs cannot be read, or do not fit the site's nodes.
    """
    known = read_site_rates(job.store(), site.queue, job.model.precision)
    if site.settings.walltime or known is None or job.kind != "gradients":
        return DEFAULT_WALLTIME
    return with_margin(predicted_seconds(Question(job=job, device=site.device, rates=known)))


def with_margin(seconds: float) -> timedelta:
    """Return the walltime for a prediction in seconds."""
    return _START + timedelta(seconds=_MARGIN * seconds)
