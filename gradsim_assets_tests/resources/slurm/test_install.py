"""An environment on a real cluster, installed by `gradsim cluster install`."""

import os
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest
from typer.testing import CliRunner

import gradsim
from gradsim.errors import ClusterError
from gradsim.partition_job import code_version
from gradsim_assets.cli import app
from resources.slurm.install import STAMP, build_wheel
from resources.slurm.site import Site

pytestmark = pytest.mark.slow


@pytest.fixture
def offline(monkeypatch):
    """Wheels are built with the setuptools that is here."""
    monkeypatch.setenv("PIP_NO_BUILD_ISOLATION", "false")


@pytest.fixture
def base(lab, monkeypatch, tmp_path, offline):
    """The remote base of a site without an environment, where pip installs nothing but gradsim itself."""
    others = tmp_path / "others"
    others.mkdir()
    for path in Path(sysconfig.get_path("purelib")).iterdir():
        if "gradsim" not in path.name and path.suffix != ".pth":
            (others / path.name).symlink_to(path)
    for name in list(os.environ):
        if name.startswith(("SLURM_", "GRADSIM_")):
            monkeypatch.delenv(name)
    variables = {
        **lab.variables,
        "SLURM_REMOTE_BASE": str(tmp_path / "remote base"),
        "SLURM_PYTHON": sys.executable,
        "SLURM_SETUP": f"export PIP_NO_DEPS=1 PIP_NO_INDEX=1 PYTHONPATH={others}",
        "DAGSTER_SLURM_SSH_CONTROL_DIR": f"{lab.folder}/run",
    }
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    return tmp_path / "remote base"


def environment_of(base):
    """The one that this code would be installed into."""
    environment = Path(Site.read().environment)
    assert environment.is_relative_to(base)
    return environment


def install():
    return CliRunner().invoke(app, ["cluster", "install"])


def test_it_is_installed_once_and_anew_where_it_was_not_finished(base, tmp_path):
    environment = environment_of(base)
    environment.mkdir(parents=True)
    (environment / "half").touch()
    result = install()
    assert result.exit_code == 0, (result.output, result.exception)
    assert not (environment / "half").exists()
    assert f"✓ {environment} is installed, 0:" in result.output
    assert (environment / STAMP).read_text().strip() == code_version()
    assert "Successfully installed gradsim" in (environment / "install.log").read_text()
    assert [path.name for path in base.joinpath("environments").iterdir()] == [environment.name]

    command = [environment / "bin/python", "-c", "import gradsim; print(gradsim.__file__)"]
    isolated = {"PYTHONPATH": str(tmp_path / "others")}
    found = subprocess.run(command, cwd=tmp_path, env=isolated, capture_output=True, text=True, check=True)
    assert Path(found.stdout.strip()).is_relative_to(environment)

    (base / "environments/gradsim-0.0.1+old").mkdir()
    again = install()
    assert f"✓ {environment} is already installed" in again.output
    assert f"  0.0 MB  {environment.parent}/gradsim-0.0.1+old\n" in again.output
    assert "to remove one: ssh -p " in again.output


def test_what_pip_said_last_is_shown_where_it_failed(base, monkeypatch):
    monkeypatch.setenv("SLURM_SETUP", "export PIP_NO_INDEX=1 PIP_CONFIG_FILE=/dev/null")
    result = install()
    assert "ERROR: " in result.output
    log = environment_of(base).with_name(f"{environment_of(base).name}.install") / "install.log"
    assert str(log) in str(result.exception)
    assert "must reach a package index" in str(result.exception)
    assert log.exists()


def test_a_python_that_is_not_there_or_too_old(base, monkeypatch, tmp_path):
    monkeypatch.setenv("SLURM_PYTHON", "/nowhere/python")
    with pytest.raises(ClusterError, match=r"/nowhere/python cannot be run .*; set it to a Python 3.11 or 3.12"):
        raise install().exception
    old = tmp_path / "python3.9"
    old.write_text("#!/bin/sh\necho 3 9 18\n")
    old.chmod(0o755)
    monkeypatch.setenv("SLURM_PYTHON", str(old))
    with pytest.raises(ClusterError, match=r"is Python 3.9.18; set it to"):
        raise install().exception


def test_an_environment_of_ones_own_is_left_alone(base, monkeypatch):
    monkeypatch.setenv("SLURM_ENVIRONMENT", "/opt/mine")
    with pytest.raises(ClusterError, match="SLURM_ENVIRONMENT=/opt/mine is your own environment"):
        raise install().exception


def test_a_wheel_has_the_code_and_what_the_report_needs_and_nothing_else(tmp_path, offline):
    with zipfile.ZipFile(build_wheel(tmp_path)) as wheel:
        names = [name for name in wheel.namelist() if ".dist-info/" not in name]
    package = Path(gradsim.__file__).parent
    sources = {path.relative_to(package.parent).as_posix() for path in package.rglob("*.py*") if path.suffix != ".pyc"}
    assert sources <= set(names)
    assert {name.split("/")[0] for name in names} == {"gradsim", "gradsim_assets", "resources"}
    page = {path.relative_to(package.parent).as_posix() for path in (package / "report/page").rglob("*.*")}
    assert {Path(name).suffix for name in page} == {".j2", ".css", ".js"}
    typing = {f"{top}/py.typed" for top in ("gradsim", "gradsim_assets", "resources")}
    assert {name for name in names if Path(name).suffix not in {".py", ".pyi"}} == page | typing


def test_without_a_checkout_there_is_nothing_to_build(tmp_path, monkeypatch):
    monkeypatch.setattr(gradsim, "__file__", str(tmp_path / "site-packages/gradsim/__init__.py"))
    with pytest.raises(ClusterError, match="not a source checkout; run this command from one, or"):
        build_wheel(tmp_path)
