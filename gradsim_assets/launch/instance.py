"""The persistent Dagster instance, shared by the command line and the web UI."""

import os
from pathlib import Path

import dagster as dg
from filelock import FileLock

from gradsim.environment import Environment, project_root
from gradsim.errors import StudyError, parsing
from gradsim_assets.dispatch import set_pool_limits
from gradsim_assets.home import dagster_home
from resources.full_disks import disk_error


def prepare_home(environment: Environment) -> Path:
    """Create the instance folder, set `DAGSTER_HOME` to it, and return it; the default is `<data root>/.dagster`.

    Only this user can enter a folder that is created here. The default folder always gets a copy of the project's
    `dagster.yaml`. A user's own `DAGSTER_HOME` gets one only if it has no `dagster.yaml` yet.

    Raises:
        StudyError: The folder cannot be written.
    """
    home = dagster_home(environment)
    ours = not os.environ.get("DAGSTER_HOME")
    try:
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        tracked, configuration = project_root() / "dagster.yaml", home / "dagster.yaml"
        if tracked.is_file() and (ours or not configuration.exists()):
            content = tracked.read_bytes()
            if not configuration.exists() or configuration.read_bytes() != content:  # the disk may be full
                configuration.write_bytes(content)
    except OSError as error:
        raise disk_error(error) or StudyError(
            f"{home}: cannot be written ({error.strerror}); "
            "set GRADSIM_DATA or DAGSTER_HOME to a folder that you can write to"
        ) from error
    os.environ["DAGSTER_HOME"] = str(home)
    return home


def open_instance(environment: Environment) -> dg.DagsterInstance:
    """Open the Dagster instance in `DAGSTER_HOME`, with the environment's pool limits.

    Raises:
        StudyError: The folder cannot be written, its `dagster.yaml` is malformed, or the storage cannot be used.
    """
    configuration = prepare_home(environment) / "dagster.yaml"
    try:
        with (
            parsing(StudyError, f"{configuration}: Dagster cannot use it", "correct it, or the storage that it names"),
            FileLock(configuration.with_name(".opening")),  # two processes must not create the storage at once
        ):
            instance = dg.DagsterInstance.get()
            set_pool_limits(instance, environment)
    except StudyError as error:
        raise disk_error(error) or error from error
    return instance
