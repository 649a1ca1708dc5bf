"""Places where a study can run, for its plan: this machine or a cluster, their speed, and how to measure it."""

from dataclasses import dataclass
from typing import Any, Protocol

import dagster as dg

from gradsim import models
from gradsim.errors import ClusterError
from gradsim.forecast.costs import Machine
from gradsim.forecast.sources import Sources
from gradsim.partition_job import PartitionJob
from gradsim.partition_job.job import RATES
from gradsim.partition_job.rates import measured_rates
from gradsim.tables.rates import MeasuredRates, read_rates, read_site_rates
from gradsim_assets.commands.session import Session
from gradsim_assets.launch.display import LOGGER_KEY, run_display
from gradsim_assets.launch.launching import RunError, failure_text
from gradsim_assets.terminal import console
from resources.slurm.compute import SlurmCompute
from resources.slurm.site import Site


class Place(Protocol):
    """A place where a study can run."""

    @property
    def name(self) -> str:
        """Display name."""

    @property
    def device(self) -> str:
        """Device of a job: `cpu`, `cuda` or `cuda:N`."""

    def known(self, session: Session) -> MeasuredRates | None:
        """Return the rates measured there for the study's precision; None if there are none."""

    def machine(self, session: Session, known: MeasuredRates | None) -> Machine:
        """Return the machine for predictions.

        Raises:
            ClusterError: The memory of the cluster's nodes is unknown.
        """

    def measure(self, session: Session, sources: Sources) -> MeasuredRates:
        """Time a few of the study's originals there, and return the rates.

        Raises:
            GradsimError: The measurement cannot run.
        """


def place_of(session: Session) -> Place:
    """Return the place where the environment runs partition jobs.

    Raises:
        DeviceError: This machine does not have the requested device.
        ClusterError: The site's settings are invalid.
    """
    if session.environment.compute == "slurm":
        return Cluster(Site.read())
    return ThisMachine(models.resolve_device(session.environment.device))


@dataclass(frozen=True)
class ThisMachine:
    """This machine."""

    device: str

    @property
    def name(self) -> str:
        """Device and its hardware name."""
        return ("" if self.device == "cpu" else f"{self.device}: ") + models.device_name(self.device)

    def known(self, session: Session) -> MeasuredRates | None:
        """Return the rates measured on this device; None if there are none."""
        return read_rates(session.store, self.device, session.study.model.precision)

    def machine(self, session: Session, known: MeasuredRates | None) -> Machine:
        """Return the machine with the environment's memory budget, or else with the memory that is free now."""
        return Machine(self.device, session.environment.memory_budget, known.rates if known else None)

    def measure(self, session: Session, sources: Sources) -> MeasuredRates:
        """Measure in this process."""
        study, configuration = session.study, sources.loadable_model(self.device)
        assert sources.tokenized is not None  # a model that can be loaded has a tokenizer
        models.hide_progress_bars()
        with console.status(f"measuring on {self.device}: a few of the study's originals"):
            measured = measured_rates(study, configuration, sources.tokenized, session.environment.memory_budget)
        return MeasuredRates(precision=study.model.precision, **{name: measured[name] for name in MEASURED})


@dataclass(frozen=True)
class Cluster:
    """A Slurm cluster."""

    site: Site

    @property
    def name(self) -> str:
        """Name of the queue."""
        return self.site.queue

    @property
    def device(self) -> str:
        """Device of a node."""
        return self.site.device

    def known(self, session: Session) -> MeasuredRates | None:
        """Return the latest rates measured on this queue; None if there are none."""
        return read_site_rates(session.store, self.site.queue, session.study.model.precision)

    def machine(self, session: Session, known: MeasuredRates | None) -> Machine:
        """Return the machine with the environment's memory budget, or else with the one found by the measurement.

        Raises:
            ClusterError: Neither is known.
        """
        budget = session.environment.memory_budget or (known.memory_budget if known else None)
        if budget is None:
            raise ClusterError(
                f"{self.name}: node memory unknown; measure it (gradsim plan {session.study.name} --measure), or set "
                "it (GRADSIM_MEMORY_BUDGET=60GiB)"
            )
        return Machine(self.device, budget, known.rates if known else None)

    def measure(self, session: Session, sources: Sources) -> MeasuredRates:
        """Measure in a job that runs like all others."""
        store = session.store
        # The job reads the dataset's tables, so make them first.
        if launches := session.plan([store.lineage.key("tokenized")]):
            session.run(launches)
        job = PartitionJob(
            study=session.study,
            keys=(store.lineage.key(RATES),),
            partitions=(None,),
            fingerprints={},
            digests=store.lineage.named_files(),
            root=store.root,
            model=sources.loadable_model(self.device),
            memory_budget=session.environment.memory_budget,
            force=True,
        )
        measured = _run_alone(job, session)
        return MeasuredRates(
            site=self.site.queue,
            precision=session.study.model.precision,
            memory_budget=measured["memory_budget"],
            **{name: measured[name] for name in MEASURED},
        )


# Measurements that are kept.
MEASURED = ("device", "operations_per_second", "bytes_per_second")


def _run_alone(job: PartitionJob, session: Session) -> dict[str, Any]:
    """Run a job without any table, in an ephemeral Dagster instance, and return its measurements.

    Raises:
        RunError: The job failed.
    """
    measured: dict[str, Any] = {}

    @dg.asset(key=[session.study.name, RATES])
    def rates(context: dg.AssetExecutionContext) -> dg.MaterializeResult[None]:
        measured.update(SlurmCompute().run(context, job).measured)
        return dg.MaterializeResult()

    with run_display() as (_, logger), dg.DagsterInstance.ephemeral() as instance:
        definitions = dg.Definitions([rates], loggers={LOGGER_KEY: logger})
        result = definitions.resolve_implicit_global_asset_job_def().execute_in_process(
            instance=instance, run_config={"loggers": {LOGGER_KEY: {}}}, raise_on_error=False
        )
    if not result.success:
        raise RunError(failure_text(result, session.store))
    return measured
