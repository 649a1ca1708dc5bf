"""What loads without heavy libraries, and how long files are. Import contracts are checked by `make lint`."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

LONGEST_FILE = 400

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
HEAVY = {"torch", "transformers", "datasets", "openai", "matplotlib"}


def sources(project: Path, *folders: str) -> Iterator[Path]:
    for folder in folders:
        yield from sorted((project / folder).rglob("*.py"))


@pytest.mark.parametrize("module", LIGHT)
def test_what_loads_without_the_heavy_libraries(project: Path, module: str) -> None:
    code = f"import sys, {module}; print(sorted({HEAVY} & sys.modules.keys()))"
    loaded = subprocess.run([sys.executable, "-c", code], cwd=project, capture_output=True, text=True, check=False)
    assert (loaded.stdout.strip(), loaded.returncode) == ("[]", 0), loaded.stderr


@pytest.mark.parametrize("module", ["gradsim.study", "gradsim.tables", "gradsim.analysis", "gradsim_assets.cli"])
def test_what_loads_without_dagster(project: Path, module: str) -> None:
    code = f"import sys, {module}; print([name for name in sys.modules if name.startswith('dagster')])"
    loaded = subprocess.run([sys.executable, "-c", code], cwd=project, capture_output=True, text=True, check=True)
    assert loaded.stdout.strip() == "[]"


@pytest.mark.parametrize("module", ["gradsim_assets.commands.materialize", "gradsim_assets.commands.doctor"])
def test_the_cluster_loads_where_it_is_used(project: Path, module: str) -> None:
    """So that a broken installation does not keep the doctor from saying what is broken."""
    code = f"import sys, {module}; print('dagster_slurm' in sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], cwd=project, capture_output=True, text=True, check=True)
    assert loaded.stdout.strip() == "False"


def test_no_file_is_too_long(project: Path) -> None:
    lengths = {
        str(path.relative_to(project)): len(path.read_text(encoding="utf-8").splitlines())
        for path in sources(project, "gradsim", "gradsim_assets", "gradsim_assets_tests", "resources", "benchmarks")
    }
    assert len(lengths) > 100
    assert {name: length for name, length in lengths.items() if length > LONGEST_FILE} == {}


def test_docstrings_begin_with_what_they_describe(project: Path) -> None:
    """No inverted sentences: neither "Of a batch, the ..." nor "The same for ..."."""
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    found = [
        f"{path.relative_to(project)}: {text.splitlines()[0]}"
        for path in sources(project, "gradsim", "gradsim_assets", "resources", "benchmarks", "scripts")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, documented) and (text := ast.get_docstring(node))
        if text.startswith(("Of ", "The same", "That ", "As "))
    ]
    assert found == []
