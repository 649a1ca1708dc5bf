"""The command's outside: what it lists, what it refuses, and with which exit status."""

import re

import pytest
from typer.testing import CliRunner

from gradsim_assets.cli import app

COMMANDS = [
    "init",
    "list",
    "run",
    "combine",
    "prepare",
    "plan",
    "report",
    "query",
    "status",
    "web",
    "doctor",
    "cluster",
]


@pytest.fixture
def invoke(workplace, monkeypatch):
    """The command in this process: for what ends before any work."""
    for name, value in workplace.variables.items():
        monkeypatch.setenv(name, value)
    return lambda *arguments: CliRunner().invoke(app, arguments)


def test_help_lists_the_commands(invoke):
    result = invoke("--help")
    assert result.exit_code == 0
    for command in COMMANDS:
        assert re.search(rf"^\W*{command} +\w", result.output, re.MULTILINE), command


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_explains_itself(invoke, command):
    result = invoke(command, "--help")
    assert result.exit_code == 0
    assert f"Usage: root {command} [OPTIONS]" in result.output
    assert "--help" in result.output


def test_run_has_the_documented_options(invoke):
    output = invoke("run", "--help").output
    options = "--setting --computation --partition --partition-start --partition-end --num-partitions --dry-run --force"
    for option in options.split():
        assert re.search(rf"{option}\b(?!-)", output), option
    for computation in ("dot-product", "gradient-similarity", "random-projection", "all"):
        assert computation in output


@pytest.mark.parametrize(
    "arguments",
    [
        ("rnu", "tiny"),
        ("run",),
        ("run", "tiny", "--computation", "dots"),
        ("run", "tiny", "--num-partitions", "0"),
        ("run", "tiny", "--partition-start", "-1"),
        ("prepare", "tiny", "word_dropout"),
        ("web", "--port", "0"),
    ],
    ids=" ".join,
)
def test_misuse_is_explained_with_exit_status_2(invoke, workplace, arguments):
    result = invoke(*arguments)
    assert result.exit_code == 2
    assert "Usage: root" in result.output
    assert not workplace.data.exists()


@pytest.mark.slow
def test_the_installed_command_ends_with_1_and_one_line_where_the_user_erred(workplace):
    process = workplace.start("gradsim", "run", "tinny")
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert output == f"error: no study 'tinny' in {workplace.studies}; did you mean 'tiny'?\n"


@pytest.mark.slow
def test_without_a_command_help_is_shown(workplace):
    process = workplace.start("gradsim")
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "Usage: gradsim" in output
