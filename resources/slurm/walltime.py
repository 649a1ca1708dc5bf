"""How long a job asks for: what rates measured on the site predict, with a margin."""

from datetime import timedelta

import polars as pl

from gradsim.partition_job import PartitionJob
from gradsim.rates import MeasuredRates, read_site_rates
from gradsim.study.partitions import select_partitions
from gradsim.tables.lineage import PROJECTED_TABLES
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
    return with_margin(_predicted_seconds(job, site, known))


def with_margin(seconds: float) -> timedelta:
    """Of a prediction."""
    return _START + timedelta(seconds=_MARGIN * seconds)


def _predicted_seconds(job: PartitionJob, site: Site, known: MeasuredRates) -> float:
    from gradsim.forecast.costs import Forecaster, Machine  # noqa: PLC0415 - torch takes seconds to load
    from gradsim.forecast.inputs import JobInputs, partition_inputs  # noqa: PLC0415
    from gradsim.forecast.sources import Sources  # noqa: PLC0415

    store = job.store()
    sources = Sources(store, lambda: pl.DataFrame(store.read(store.lineage.key("samples"))))
    forecaster = Forecaster(sources, Machine(site.device, known.memory_budget, known.rates))
    partitions = select_partitions(job.study.partitions, [str(partition) for partition in job.partitions])
    inputs = JobInputs.of([partition_inputs(sources, job.setting_name, each) for each in partitions], sources.originals)
    projected = not set(job.tables).isdisjoint(PROJECTED_TABLES)
    prediction = forecaster.predict(inputs, forecaster.projectors if projected else [])
    assert prediction.seconds is not None  # rates are known
    return prediction.seconds
