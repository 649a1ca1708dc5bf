"""Errors that no code expects: one line that names a file with the traceback."""

import os
import re
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from gradsim.errors import StudyError
from gradsim_assets import cli, terminal

END = ", a fault of gradsim or of a package it uses; report it with "


@pytest.fixture
def ends(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[[BaseException], str]:
    """What the command prints if an error reaches it."""
    monkeypatch.setattr(terminal.console, "width", 400)

    def main(error: BaseException) -> str:
        def fail(prog_name: str) -> None:
            raise error

        monkeypatch.setattr(cli, "app", fail)
        with pytest.raises(SystemExit) as ended:
            cli.main()
        assert ended.value.code == 1
        (line,) = capsys.readouterr().out.splitlines()
        return str(line)

    return main


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GRADSIM_DATA", str(tmp_path / "data root"))
    return tmp_path / "data root"


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (KeyError("model"), "unexpected KeyError (KeyError: 'model')"),
        (ValueError("one\ntwo [bold]"), "unexpected ValueError (one)"),
        (
            pl.exceptions.PanicException("range end out of bounds"),
            "unexpected PanicException (range end out of bounds)",
        ),
    ],
)
def test_the_traceback_is_in_a_file(
    ends: Callable[[BaseException], str], data: Path, error: BaseException, text: str
) -> None:
    umask = os.umask(0)
    try:
        line = ends(error)
    finally:
        os.umask(umask)
    assert line.startswith(f"error: {text}{END}{data / '.errors'}/gradsim-")
    (file,) = (data / ".errors").iterdir()
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.parent.stat().st_mode & 0o777 == 0o700
    assert line.endswith(file.name)
    assert file.read_text(encoding="utf-8").startswith("Traceback (most recent call last):\n")
    assert str(error) in file.read_text(encoding="utf-8")


def test_a_data_root_that_cannot_be_written(ends: Callable[[BaseException], str], data: Path, temporary: Path) -> None:
    data.write_text("a file")
    line = ends(KeyError("model"))
    (file,) = temporary.iterdir()
    assert line == f"error: unexpected KeyError (KeyError: 'model'){END}{file}"


def test_an_environment_that_cannot_be_read(
    ends: Callable[[BaseException], str], temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MT_SAMPLE_SIZE", "none")
    assert ends(RecursionError()).endswith(str(next(temporary.iterdir())))


def test_no_folder_that_can_be_written(ends: Callable[[BaseException], str], data: Path, temporary: Path) -> None:
    data.write_text("a file")
    temporary.rmdir()
    temporary.write_text("a file")
    assert ends(OSError("No space left on device")) == (
        "error: unexpected OSError (No space left on device), and its traceback cannot be written to "
        f"{data / '.errors'}; make room there and run again"
    )


def test_an_error_that_the_user_can_fix_writes_no_file(ends: Callable[[BaseException], str], data: Path) -> None:
    assert ends(StudyError("a.yaml: top_k is 0; use at least 1")) == "error: a.yaml: top_k is 0; use at least 1"
    assert not data.exists()


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(3)])
def test_interrupts_pass(data: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    def fail(prog_name: str) -> None:
        raise error

    monkeypatch.setattr(cli, "app", fail)
    with pytest.raises(type(error)):
        cli.main()
    assert not data.exists()


@pytest.mark.parametrize("content", [b"[", b"storage: 3", b"no: key", b"\xff", b"[" * 3000])
def test_a_malformed_configuration_of_dagster(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], content: bytes
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "dagster.yaml").write_bytes(content)
    monkeypatch.setenv("DAGSTER_HOME", str(home))
    monkeypatch.setattr(sys, "argv", ["gradsim", "run", "sample"])
    with pytest.raises(SystemExit):
        cli.main()
    lines = "".join(capsys.readouterr().out.splitlines())
    assert re.search(rf"error: {home}/dagster.yaml: Dagster cannot use it \(.*\); correct it", lines), lines
    assert not (data / ".errors").exists()
