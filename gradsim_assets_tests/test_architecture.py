"""Which part may know which, and what must load without the heavy libraries."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

LONGEST_FILE = 400

# Packages -> what their modules must not import.
FORBIDDEN = {
    "gradsim": {"dagster", "dagster_pipes", "dagster_slurm", "resources", "gradsim_assets"},
    "resources": {"gradsim_assets"},
}
ALLOWED = {("gradsim/partition_job/__main__.py", "dagster_pipes")}  # how a job reports to whoever waits for it

LIGHT = (
    "gradsim",
    "gradsim.study",
    "gradsim.tables",
    "gradsim.analysis",
    "gradsim.dataset.samples",
    "gradsim.candidates",
    "gradsim.queries",
    "gradsim.partition_job",
    "gradsim_assets.definitions",
    "gradsim_assets.cli",
    "resources.slurm.compute",
)
HEAVY = {"torch", "transformers", "datasets"}


def sources(project: Path, *folders: str) -> Iterator[Path]:
    for folder in folders:
        yield from sorted((project / folder).rglob("*.py"))


def imported(path: Path) -> set[str]:
    """Top names of all that a file imports, also inside functions."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.split(".")[0])
    return found


@pytest.mark.parametrize("package", FORBIDDEN)
def test_packages_know_only_what_lies_below_them(project: Path, package: str) -> None:
    files = list(sources(project, package))
    assert files
    wrong = {(str(path.relative_to(project)), name) for path in files for name in imported(path) & FORBIDDEN[package]}
    assert wrong - ALLOWED == set()


def test_every_exception_is_still_needed(project: Path) -> None:
    assert all(name in imported(project / path) for path, name in ALLOWED)


@pytest.mark.parametrize("module", LIGHT)
def test_what_loads_without_the_heavy_libraries(project: Path, module: str) -> None:
    code = f"import sys, {module}; print(sorted({HEAVY} & sys.modules.keys()))"
    loaded = subprocess.run([sys.executable, "-c", code], cwd=project, capture_output=True, text=True, check=False)
    assert (loaded.stdout.strip(), loaded.returncode) == ("[]", 0), loaded.stderr


@pytest.mark.parametrize("module", ["gradsim.study", "gradsim.tables", "gradsim.analysis"])
def test_the_science_loads_without_dagster(project: Path, module: str) -> None:
    code = f"import sys, {module}; print([name for name in sys.modules if name.startswith('dagster')])"
    loaded = subprocess.run([sys.executable, "-c", code], cwd=project, capture_output=True, text=True, check=True)
    assert loaded.stdout.strip() == "[]"


def test_no_file_is_too_long(project: Path) -> None:
    lengths = {
        str(path.relative_to(project)): len(path.read_text(encoding="utf-8").splitlines())
        for path in sources(project, "gradsim", "gradsim_assets", "gradsim_assets_tests", "resources", "benchmarks")
    }
    assert len(lengths) > 100
    assert {name: length for name, length in lengths.items() if length > LONGEST_FILE} == {}
