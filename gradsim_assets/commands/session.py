"""A command's view of a study: its definition, its tables, the environment, and its runs."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import typer

from gradsim import models
from gradsim.environment import Environment, read_environment
from gradsim.errors import StudyError, TableError, first_line
from gradsim.study import Study, load_study
from gradsim.study.partitions import Partition
from gradsim.tables import Store, TableKey
from gradsim_assets import launch
from gradsim_assets.home import dagster_home, may_have_failed_runs
from gradsim_assets.launch.targets import Launch, plan_launches
from gradsim_assets.terminal import console
from resources.full_disks import disk_error


@dataclass(frozen=True)
class Session:
    """A study on this machine."""

    study: Study
    environment: Environment

    @classmethod
    def open(cls, name: str) -> "Session":
        """Open the study of this name, with the changes that the environment requests.

        Raises:
            StudyError: There is no such study, or its file or the environment is invalid.
        """
        environment = read_environment()
        return cls(load_study(name, environment), environment)

    @cached_property
    def store(self) -> Store:
        """Tables of the study."""
        return Store(self.environment.data_root, self.study)

    def settings(self, name: str | None) -> list[str]:
        """Return the named setting as a list, or all settings; dashes count as underscores (`model-generated`).

        Raises:
            StudyError: The study has no such setting.
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
        """Return the launches that make these tables, for these partitions or all; arguments as of `plan_launches`.

        Raises:
            TableError: An imported table is missing or stale.
        """
        partitions = self.study.partitions if partitions is None else partitions
        return plan_launches(self.store, targets, partitions, force=force, runs=runs)

    def run(self, launches: Sequence[Launch], *, force: bool = False) -> None:
        """Run planned launches.

        Raises:
            GradsimError: A run failed.
        """
        if not launches:
            console.print("nothing to do: everything requested is fresh")
            return
        launch.run_launches(self.study, launches, self.environment, force=force)

    def refuse_imported(self) -> None:
        """Raise for an imported study, in commands that need more than its tables.

        Raises:
            StudyError: The study was imported.
        """
        if self.study.imported:
            raise StudyError(
                f"study '{self.study.name}' was imported and has no model, no texts and no partitions; "
                f"make its analyses and report: gradsim run {self.study.name}"
            )

    def check_device(self, launches: Sequence[Launch]) -> None:
        """Raise for a missing device before any work starts, if these launches need it.

        Raises:
            DeviceError: This machine does not have the device.
        """
        device = self.environment.device
        local = self.environment.compute == "local"
        if local and device not in {"auto", "cpu"} and launch.needs_job(self.study, launches):
            models.resolve_device(device)

    def failed_partitions(self, keys: Sequence[TableKey]) -> set[tuple[TableKey, str | None]]:
        """Return the partitions of these tables whose latest materialization failed, from the Dagster instance.

        Without its storage, for example on a full disk, there are none; a line says so.
        """
        if not keys or not may_have_failed_runs(dagster_home(self.environment)):
            return set()
        try:
            return launch.failed_partitions(self.store, keys, self.environment)
        except Exception as error:  # noqa: BLE001 - the storage can be any database
            reason = disk_error(error) or first_line(error)
            typer.echo(f"failed runs are not known: {reason}", err=True)
            return set()

    def refuse_partitions(self, launches: Sequence[Launch]) -> None:
        """Raise if these launches contain partitions, in commands that only combine or analyse computed partitions.

        Raises:
            TableError: Partitions are missing or stale.
        """
        for each in launches:
            if each.partitions:
                raise TableError(
                    f"{each.keys[0]}: {len(each.partitions)} partitions are missing or stale, "
                    f"{each.partitions[0]} first; compute them: gradsim run {self.study.name}"
                )
