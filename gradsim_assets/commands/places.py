"""Where a study would run, for its plan: this machine or a cluster, how fast that is, and how to find it out."""

from dataclasses import dataclass
from typing import Any, Protocol

import dagster as dg

from gradsim import models
from gradsim.errors import ClusterError
from gradsim.forecast.costs import Forecaster, Machine
from gradsim.forecast.sources import Sources
from gradsim.gradients.calibration import measure_rates
from gradsim.partition_job import PartitionJob
from gradsim.partition_job.inputs import sequences
from gradsim.partition_job.job import RATES
from gradsim.tables.rates import MeasuredRates, read_rates, read_site_rates
from gradsim_assets.commands.session import Session
from gradsim_assets.launch.display import LOGGER_KEY, run_display
from gradsim_assets.launch.launching import RunError, failure_text
from gradsim_assets.terminal import console
from resources.slurm.compute import SlurmCompute
from resources.slurm.site import Site


class Place(Protocol):
    """Where a study would run."""

    @property
    def name(self) -> str:
        """For people."""

    @property
    def device(self) -> str:
        """Of a job: cpu or cuda:N."""

    def known(self, session: Session) -> MeasuredRates | None:
        """What was measured there for the study; None: nothing."""

    def machine(self, session: Session, known: MeasuredRates | None) -> Machine:
        """For predictions.

        Raises:
            ClusterError: nothing is known of it.
        """

    def measure(self, session: Session, sources: Sources) -> MeasuredRates:
        """Time a few of the study's originals there.

        Raises:
            GradsimError: they cannot be run.
        """


def place_of(session: Session) -> Place:
    """Where the environment has partition jobs run.

    Raises:
        DeviceError: this machine's device is not there.
        ClusterError: the site's settings cannot be followed.
    """
    if session.environment.compute == "slurm":
        return Cluster(Site.read())
    return ThisMachine(models.resolve_device(session.environment.device))


@dataclass(frozen=True)
class ThisMachine:
    """Here."""

    device: str

    @property
    def name(self) -> str:
        """The device and its model."""
        return ("" if self.device == "cpu" else f"{self.device}: ") + models.device_name(self.device)

    def known(self, session: Session) -> MeasuredRates | None:
        """What was measured on this device."""
        return read_rates(session.store, self.device, session.study.model.precision)

    def machine(self, session: Session, known: MeasuredRates | None) -> Machine:
        """With what is free now, or the environment's budget."""
        return Machine(self.device, session.environment.memory_budget, known.rates if known else None)

    def measure(self, session: Session, sources: Sources) -> MeasuredRates:
        """In this process."""
        study = session.study
        configuration = sources.model_configuration(self.device)
        assert sources.tokenized is not None  # a model that can be loaded has a tokenizer
        samples = sequences(sources.tokenized)
        models.hide_progress_bars()
        with console.status(f"measuring on {self.device}: a few of the study's originals"):
            rates = measure_rates(
                models.load_model(configuration),
                samples,
                partners=len(samples) if study.top_k == "all" else study.top_k,
                precision=study.model.precision,
                projectors=Forecaster(sources, Machine(self.device)).projectors,
                memory_budget=session.environment.memory_budget,
            )
        return MeasuredRates(
            device=models.device_name(self.device),
            precision=study.model.precision,
            operations_per_second=rates.operations_per_second,
            bytes_per_second=rates.bytes_per_second,
        )


@dataclass(frozen=True)
class Cluster:
    """A Slurm cluster."""

    site: Site

    @property
    def name(self) -> str:
        """The queue."""
        return self.site.queue

    @property
    def device(self) -> str:
        """Of a node."""
        return self.site.device

    def known(self, session: Session) -> MeasuredRates | None:
        """What was measured on this queue last."""
        return read_site_rates(session.store, self.site.queue, session.study.model.precision)

    def machine(self, session: Session, known: MeasuredRates | None) -> Machine:
        """With what a job had there when it measured, or the environment's budget."""
        budget = session.environment.memory_budget or (known.memory_budget if known else None)
        if budget is None:
            raise ClusterError(
                f"{self.name}: nobody knows yet what a node can hold; measure it (gradsim plan {session.study.name} "
                "--measure), or say it (GRADSIM_MEMORY_BUDGET=60GiB)"
            )
        return Machine(self.device, budget, known.rates if known else None)

    def measure(self, session: Session, sources: Sources) -> MeasuredRates:
        """In a job that runs as all others do."""
        store = session.store
        # A job reads tables; the dataset's are made here.
        if launches := session.plan([store.lineage.key("tokenized")]):
            session.run(launches)
        job = PartitionJob(
            study=session.study,
            keys=(store.lineage.key(RATES),),
            partitions=(None,),
            fingerprints={},
            digests=store.lineage.named_files(),
            root=store.root,
            model=sources.model_configuration(self.device),
            memory_budget=session.environment.memory_budget,
            force=True,
        )
        measured = _run_alone(job, session)
        return MeasuredRates(
            site=self.site.queue,
            precision=session.study.model.precision,
            **{name: measured[name] for name in MEASURED},
        )


# Of what a job of rates tells.
MEASURED = ("device", "operations_per_second", "bytes_per_second", "memory_budget")


def _run_alone(job: PartitionJob, session: Session) -> dict[str, Any]:
    """What a job measured that no table is made of: a run that no instance remembers."""
    measured: dict[str, Any] = {}

    @dg.asset(key=[session.study.name, RATES])
    def rates(context: dg.AssetExecutionContext) -> dg.MaterializeResult[None]:
        measured.update(SlurmCompute().run(context, job).measured)
        return dg.MaterializeResult()

    with run_display() as logger, dg.DagsterInstance.ephemeral() as instance:
        definitions = dg.Definitions([rates], loggers={LOGGER_KEY: logger})
        result = definitions.resolve_implicit_global_asset_job_def().execute_in_process(
            instance=instance, run_config={"loggers": {LOGGER_KEY: {}}}, raise_on_error=False
        )
    if not result.success:
        raise RunError(failure_text(result, session.store))
    return measured
