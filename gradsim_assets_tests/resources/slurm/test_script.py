"""Batch scripts, run by a shell as Slurm runs them."""

import json
import subprocess
import sys
from pathlib import Path, PurePosixPath

import pytest

from gradsim.environment import JOB_VARIABLES
from resources.slurm.script import python_script

PRINT_ENVIRONMENT = "-c 'import json, os; print(json.dumps(dict(os.environ)))'"


@pytest.mark.parametrize(
    ("own", "setup", "value"),
    [
        ({}, "", "PASSIVE"),
        ({"OMP_WAIT_POLICY": "ACTIVE"}, "", "ACTIVE"),
        ({}, "export OMP_WAIT_POLICY=ACTIVE", "ACTIVE"),
    ],
    ids=["nobody set it", "the cluster or the user did", "the site's setup did"],
)
def test_what_is_set_already_wins(site_of, tmp_path: Path, own: dict[str, str], setup: str, value: str) -> None:
    environment = tmp_path / "environment/bin"
    environment.mkdir(parents=True)
    (environment / "python").symlink_to(sys.executable)
    site = site_of(SLURM_ENVIRONMENT=str(environment.parent), SLURM_SETUP=setup)
    script = python_script(site, "a test", PurePosixPath(tmp_path), PRINT_ENVIRONMENT, {"GIVEN": "a 'value'"})
    done = subprocess.run(["bash", "-c", script], env=own, capture_output=True, text=True, check=True)
    expected = {**JOB_VARIABLES, "OMP_WAIT_POLICY": value, "GIVEN": "a 'value'"}
    assert expected.items() <= json.loads(done.stdout).items()
