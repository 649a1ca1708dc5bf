"""The commit of the code."""

import subprocess
from pathlib import Path

import pytest

from gradsim import environment
from gradsim_assets_tests.programs import require_program


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout of a package, without git at first."""
    source = tmp_path / "gradsim" / "environment.py"
    source.parent.mkdir()
    source.write_text("first\n")
    monkeypatch.setattr(environment, "__file__", str(source))
    return tmp_path


def git(checkout: Path, *arguments: str) -> str:
    who = ("-c", "user.name=a", "-c", "user.email=a@example.org")
    command = [require_program("git"), "-C", str(checkout), *who, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def test_the_commit_is_that_of_the_checkout(checkout: Path) -> None:
    commit = environment.code_commit.__wrapped__
    assert commit() is None, "no repository"
    git(checkout, "init", "--quiet")
    assert commit() is None, "no commit"
    git(checkout, "add", ".")
    git(checkout, "commit", "--quiet", "-m", "first")
    git(checkout, "tag", "v1")
    head = git(checkout, "rev-parse", "HEAD")
    assert commit() == head
    (checkout / "beside.txt").write_text("not tracked")
    assert commit() == head
    (checkout / "gradsim" / "environment.py").write_text("second\n")
    assert commit() == f"{head} with uncommitted changes"


def test_without_git_the_commit_is_unknown(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    git(checkout, "init", "--quiet")
    monkeypatch.setenv("PATH", "")
    assert environment.code_commit.__wrapped__() is None


def test_a_repository_around_an_installed_package_is_another(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    git(checkout, "init", "--quiet")
    git(checkout, "commit", "--quiet", "--allow-empty", "-m", "theirs")
    installed = checkout / "venv" / "site-packages" / "gradsim" / "environment.py"
    installed.parent.mkdir(parents=True)
    monkeypatch.setattr(environment, "__file__", str(installed))
    assert environment.code_commit.__wrapped__() is None
