"""One command's view of a study: its definition, its tables, the machine, and running what is asked for."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

from gradsim import models
from gradsim.environment import Environment, read_environment
from gradsim.errors import StudyError, TableError
from gradsim.study import Study, load_study
from gradsim.study.partitions import Partition
from gradsim.tables import Store, TableKey
from gradsim_assets.assets.gradients import job_op
from gradsim_assets.launch.launching import failed_partitions, run_launches
from gradsim_assets.launch.targets import Launch, plan_launches
from gradsim_assets.terminal import console


@dataclass(frozen=True)
class Session:
    """A study on this machine."""

    study: Study
    environment: Environment

    @classmethod
    def open(cls, name: str) -> "Session":
        """The study of this name, as the environment wants it.

        Raises:
            StudyError: there is no such study, or its file or the environment cannot be followed.
        """
        environment = read_environment()
        return cls(load_study(name, environment), environment)

    @cached_property
    def store(self) -> Store:
        """The study's tables."""
        return Store(self.environment.data_root, self.study)

    def settings(self, name: str | None) -> list[str]:
        """The setting asked for, or all; `model-generated` may stand for `model_generated`.

        Raises:
            StudyError: the study has no such setting.
        """
        if name is None:
            return list(self.study.settings)
        if (setting := name.replace("-", "_")) not in self.study.settings:
            raise StudyError(
                f"study '{self.study.name}' has no setting '{name}'; it has: {', '.join(self.study.settings)}"
            )
        return [setting]

    def plan(
        self,
        targets: Iterable[TableKey],
        partitions: Sequence[Partition] | None = None,
        *,
        force: bool = False,
        runs: int = 1,
    ) -> list[Launch]:
        """What has to run to have these tables, of these partitions or all."""
        partitions = self.study.partitions if partitions is None else partitions
        return plan_launches(self.store, targets, partitions, force=force, runs=runs)

    def run(self, launches: Sequence[Launch], *, force: bool = False) -> None:
        """Run what was planned.

        Raises:
            GradsimError: a run failed.
        """
        if not launches:
            console.print("nothing to do: what is asked for is there and fresh")
            return
        run_launches(self.study, launches, self.environment, force=force)

    def refuse_imported(self) -> None:
        """For commands that need more than tables.

        Raises:
            StudyError: the study was imported.
        """
        if self.study.imported:
            raise StudyError(
                f"study '{self.study.name}' was imported and has no model, no texts and no partitions; "
                f"gradsim run {self.study.name} makes its analyses and report"
            )

    def check_device(self, launches: Sequence[Launch]) -> None:
        """Refuse a device that is not there before any work starts.

        Raises:
            DeviceError: the device is not there.
        """
        device = self.environment.device
        needed = any(job_op(self.study, key) for launch in launches for key in launch.keys)
        if needed and self.environment.compute == "local" and device not in {"auto", "cpu"}:
            models.resolve_device(device)

    def failed_partitions(self) -> set[tuple[TableKey, str | None]]:
        """Partitions whose last materialization failed, as Dagster's instance remembers."""
        return failed_partitions(self.store, self.environment)

    def refuse_partitions(self, launches: Sequence[Launch]) -> None:
        """For commands that only read what partitions have made.

        Raises:
            TableError: partitions have to be computed first.
        """
        for launch in launches:
            if launch.partitions:
                raise TableError(
                    f"{launch.keys[0]}: {len(launch.partitions)} partitions are missing or stale, "
                    f"{launch.partitions[0]} first; compute them: gradsim run {self.study.name}"
                )
