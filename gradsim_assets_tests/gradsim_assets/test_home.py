"""What commands find out about the Dagster instance without importing Dagster."""

import subprocess
import sys

import dagster as dg
import pytest

from gradsim.errors import StudyError
from gradsim_assets.home import may_have_failed_runs


@pytest.fixture
def home(tmp_path):
    """A folder of an instance with one run that succeeded."""
    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
        _run(instance, "True")
    return tmp_path


def _run(instance: dg.DagsterInstance, expression: str) -> None:
    @dg.op
    def step() -> None:
        assert eval(expression)

    @dg.job
    def job() -> None:
        step()

    job.execute_in_process(instance=instance, raise_on_error=False)


def test_a_failed_run_is_found(home):
    assert not may_have_failed_runs(home)
    with dg.DagsterInstance.local_temp(str(home)) as instance:
        _run(instance, "False")
        assert may_have_failed_runs(home)  # also while another process has the database open
    assert may_have_failed_runs(home)


def test_an_instance_that_was_never_opened_has_no_runs(tmp_path):
    assert not may_have_failed_runs(tmp_path / "absent")


@pytest.mark.parametrize("content", [None, "not a database"])
def test_runs_that_only_dagster_can_read_may_have_failed(home, content):
    for path in (home / "history").glob("runs.db*"):
        path.unlink()
    if content:
        (home / "history" / "runs.db").write_text(content)
    assert may_have_failed_runs(home)


@pytest.mark.parametrize("key", ["storage", "run_storage"])
def test_runs_of_another_database_may_have_failed(home, key):
    (home / "dagster.yaml").write_text(f"{key}: {{postgres: {{postgres_url: x}}}}")
    assert may_have_failed_runs(home)


def test_a_malformed_configuration_is_named(home):
    (home / "dagster.yaml").write_text("storage: [")
    with pytest.raises(StudyError, match=r"dagster\.yaml: not a configuration of Dagster"):
        may_have_failed_runs(home)


def test_the_status_of_an_unfinished_study_loads_no_dagster(workplace, project):
    code = (
        "import sys; from gradsim_assets.commands import Session, print_status; print_status(Session.open('tiny'));"
        "print([name for name in sys.modules if name.split('.')[0] == 'dagster'])"
    )
    command = [sys.executable, "-c", code]
    said = subprocess.run(
        command, cwd=project, env=workplace.variables, capture_output=True, text=True, check=True
    ).stdout
    assert "missing" in said
    assert said.splitlines()[-1] == "[]"
