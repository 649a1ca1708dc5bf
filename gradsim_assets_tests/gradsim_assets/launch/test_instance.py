"""Where Dagster keeps what it knows: `DAGSTER_HOME`, or a folder of the data root."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from gradsim.environment import Environment
from gradsim.errors import StudyError
from gradsim_assets.launch.instance import open_instance, prepare_home
from gradsim_assets_tests.workplace import Workplace

NOBODY = 65534


@pytest.fixture
def environment(tmp_path: Path) -> Iterator[Environment]:
    """A data root, and a `DAGSTER_HOME` that nobody has set."""
    before = dict(os.environ)
    os.environ.pop("DAGSTER_HOME", None)
    yield Environment(data=tmp_path / "data root")
    os.environ.clear()
    os.environ.update(before)


def test_the_data_root_holds_it(environment: Environment, project: Path) -> None:
    home = prepare_home(environment)
    assert home == environment.data_root / ".dagster"
    assert os.environ["DAGSTER_HOME"] == str(home)
    assert (home / "dagster.yaml").read_text() == (project / "dagster.yaml").read_text()


def test_a_changed_configuration_is_brought_up_to_date(environment: Environment, project: Path) -> None:
    home = environment.data_root / ".dagster"
    home.mkdir(parents=True)
    (home / "dagster.yaml").write_text("of an earlier version")
    prepare_home(environment)
    assert (home / "dagster.yaml").read_text() == (project / "dagster.yaml").read_text()


def test_dagster_home_is_honoured(environment: Environment, tmp_path: Path) -> None:
    home = tmp_path / "my home"
    home.mkdir()
    (home / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    os.environ["DAGSTER_HOME"] = str(home)
    assert prepare_home(environment) == home
    assert (home / "dagster.yaml").read_text() == "telemetry: {enabled: false}\n"  # the user's own
    assert not environment.data_root.exists()


def test_nobody_else_can_enter_it(environment: Environment, tmp_path: Path) -> None:
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    theirs.chmod(0o750)
    umask = os.umask(0)
    try:
        home = prepare_home(environment)
        os.environ["DAGSTER_HOME"] = str(theirs)
        prepare_home(environment)
        os.environ["DAGSTER_HOME"] = str(tmp_path / "new")
        new = prepare_home(environment)
    finally:
        os.umask(umask)
    assert [each.stat().st_mode & 0o777 for each in (home, new)] == [0o700, 0o700]
    assert theirs.stat().st_mode & 0o777 == 0o750, "the user's own folder keeps its mode"


@pytest.mark.parametrize("there", [True, False])
def test_an_empty_dagster_home_too(environment: Environment, tmp_path: Path, there: bool) -> None:
    home = tmp_path / "home"
    if there:
        home.mkdir()
    os.environ["DAGSTER_HOME"] = str(home)
    assert prepare_home(environment) == home
    assert home.is_dir()
    assert not environment.data_root.exists()


def test_what_is_said_there_is_found_again(environment: Environment) -> None:
    """The command line and the web UI share it."""
    with open_instance(environment) as instance:
        assert not instance.is_ephemeral
        instance.add_dynamic_partitions("ranges", ["0000-0099"])
    with open_instance(environment) as instance:
        assert instance.get_dynamic_partitions("ranges") == ["0000-0099"]
        assert not instance.telemetry_enabled


def test_the_tracked_configuration(project: Path) -> None:
    configuration = yaml.safe_load((project / "dagster.yaml").read_text())
    assert configuration["telemetry"] == {"enabled": False}
    assert configuration["nux"] == {"enabled": False}
    # Cancelled runs would keep their places in pools.
    assert configuration["run_monitoring"]["free_slots_after_run_end_seconds"] > 0


def test_a_folder_that_cannot_be_written(environment: Environment) -> None:
    with tempfile.TemporaryDirectory() as folder:  # which others may enter, unlike pytest's
        Path(folder).chmod(0o555)
        os.environ["DAGSTER_HOME"] = f"{folder}/home"
        root = os.geteuid() == 0
        if root:
            os.seteuid(NOBODY)
        try:
            with pytest.raises(StudyError) as caught:
                prepare_home(environment)
        finally:
            if root:
                os.seteuid(0)
        Path(folder).chmod(0o755)
    assert str(caught.value) == (
        f"{folder}/home: cannot be written (Permission denied); "
        "set GRADSIM_DATA or DAGSTER_HOME to a folder that you can write to"
    )


OPEN = """import sys
from gradsim.environment import read_environment
from gradsim_assets.launch.instance import open_instance
print("ready", flush=True)
sys.stdin.readline()
with open_instance(read_environment()) as instance:
    print({each.name: each.limit for each in instance.event_log_storage.get_pool_limits()})
"""


@pytest.mark.slow
@pytest.mark.parametrize("attempt", range(2))  # one attempt without the lock can succeed
def test_processes_can_open_a_new_instance_at_once(workplace: Workplace, attempt: int) -> None:
    variables = {**os.environ, **workplace.variables}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", OPEN], env=variables, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        for _ in range(4)
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    assert {process.communicate()[0] for process in processes} == {"{'local_jobs': 1, 'slurm_jobs': 8}\n"}
