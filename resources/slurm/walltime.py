"""How long a job asks for: what rates measured on the site predict, with a margin."""

from datetime import timedelta

from gradsim.forecast.job import Question, predicted_seconds
from gradsim.partition_job import PartitionJob
from gradsim.tables.rates import read_site_rates
from resources.slurm.site import Site

# Where nobody has measured, or nothing predicts this kind of job.
DEFAULT_WALLTIME = timedelta(hours=4)

# What no prediction counts: a model that comes from a cold disk, the check of the rules.
_START = timedelta(minutes=10)

# Nodes are shared and of many ages.
_MARGIN = 3


def walltime(job: PartitionJob, site: Site) -> timedelta:
    """What a job asks for, unless the site's settings say.

    Raises:
        GradsimError: what the job compares cannot be read, or does not fit the site's nodes.
    """
    known = read_site_rates(job.store(), site.queue, job.model.precision)
    if site.settings.walltime or known is None or job.kind != "gradients":
        return DEFAULT_WALLTIME
    return with_margin(predicted_seconds(Question(job=job, device=site.device, rates=known)))


def with_margin(seconds: float) -> timedelta:
    """Of a prediction."""
    return _START + timedelta(seconds=_MARGIN * seconds)
