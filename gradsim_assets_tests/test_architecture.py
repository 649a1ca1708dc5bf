"""What loads without heavy libraries, and how long files are. Import contracts are checked by `make lint`."""

import ast
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

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


def loaded_by(project: Path, modules: Iterable[str], unwanted: str) -> str:
    """The first of these modules, imported in turn, that loads what matches, and what that is; nothing if none does."""
    code = f"""
import importlib, re, sys
for module in {list(modules)}:
    importlib.import_module(module)
    found = sorted(name for name in sys.modules if re.fullmatch({unwanted!r}, name))
    if found:
        print(f"{{module}} loads {{', '.join(found)}}")
        break
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=project, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_what_loads_without_the_heavy_libraries(project: Path) -> None:
    assert loaded_by(project, LIGHT, "|".join(HEAVY)) == ""


def test_what_loads_without_dagster(project: Path) -> None:
    modules = ("gradsim.study", "gradsim.tables", "gradsim.analysis", "gradsim_assets.cli")
    assert loaded_by(project, modules, "dagster.*") == ""


def test_the_cluster_loads_where_it_is_used(project: Path) -> None:
    """So that a broken installation does not keep the doctor from saying what is broken."""
    modules = ("gradsim_assets.commands.doctor", "gradsim_assets.commands.materialize")
    assert loaded_by(project, modules, "dagster_slurm") == ""


def test_a_module_that_loads_too_much_is_found(project: Path) -> None:
    assert loaded_by(project, ("gradsim.errors", "json.tool"), "argparse|json") == "json.tool loads argparse, json"


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
