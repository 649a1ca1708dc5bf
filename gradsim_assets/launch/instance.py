"""The persistent Dagster instance that the command line and the web UI share."""

import os
from pathlib import Path
from shutil import copyfile

import dagster as dg

from gradsim.environment import Environment, project_root
from gradsim.errors import StudyError
from gradsim_assets.dispatch import set_pool_limits


def prepare_home(environment: Environment) -> Path:
    """Set `DAGSTER_HOME` if it is not: `<data root>/.dagster`.

    That folder gets the tracked `dagster.yaml`; one that was set gets it only where it has none.

    Raises:
        StudyError: the folder cannot be written.
    """
    home = Path(os.environ.get("DAGSTER_HOME") or environment.data_root / ".dagster").expanduser().resolve()
    ours = not os.environ.get("DAGSTER_HOME")
    try:
        home.mkdir(parents=True, exist_ok=True)
        tracked, configuration = project_root() / "dagster.yaml", home / "dagster.yaml"
        if tracked.is_file() and (ours or not configuration.exists()):
            copyfile(tracked, configuration)
    except OSError as error:
        raise StudyError(
            f"{home}: cannot be written ({error.strerror}); "
            "set GRADSIM_DATA or DAGSTER_HOME to a folder that you can write"
        ) from error
    os.environ["DAGSTER_HOME"] = str(home)
    return home


def open_instance(environment: Environment) -> dg.DagsterInstance:
    """The instance in `DAGSTER_HOME`.

    Raises:
        StudyError: the folder cannot be written.
    """
    prepare_home(environment)
    instance = dg.DagsterInstance.get()
    set_pool_limits(instance, environment)
    return instance
