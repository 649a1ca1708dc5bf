"""The package that docs/extending.md prints, installed and used."""

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

USE = """
import json, sys
from pathlib import Path

import numpy as np
import polars as pl
import torch

from gradsim import analysis
from gradsim.dataset.samples import load_file, validate
from gradsim.gradients.projection import Projector, make_projections
from gradsim.plots.registry import figure_of
from gradsim.queries import QueryContext, make_queries
from gradsim.study import load_study
from gradsim.tables import Lineage
from gradsim_assets.build import build_definitions

study = load_study(sys.argv[1])
samples = validate(load_file(study.dataset.path), 2, "samples")
context = QueryContext("study/setting", 42, samples["id"].to_list(), Path("nowhere"))
made = {name: make_queries(setting, samples, context) for name, setting in study.settings.items()}

(projection,) = study.projections
shapes = {"a": (6, 5), "b": (4,)}
layers = make_projections([Projector(projection.kind, 12, 42, "p")], shapes, torch.device("cpu"))[0]

similarities = pl.DataFrame(
    {"query_id": ["q"] * 2, "original_id": ["a", "b"], "rank": [0, 1], "similarity": [0.5, 0.25]},
    schema_overrides={"rank": pl.Int32},
)
question = analysis.QUESTIONS["similarity_by_rank"]
answer = question.answer({"gradient_similarity": similarities}, 42)
figure = figure_of("similarity_by_rank", {"similarity_by_rank": answer}, "shouted")
print(json.dumps({
    "texts": {name: [m["content"] for d in each.frame["messages"].to_list() for m in d] for name, each in made.items()},
    "excluded": {name: dict(each.excluded) for name, each in made.items()},
    "dimensions": dict(layers.dimensions),
    "answer": answer.rows(),
    "checks": sorted({key.name for check in build_definitions([study]).asset_checks for key in check.check_keys}),
    "title": figure.axes[0].get_title(),
    "tables": [str(node.key) for node in Lineage(study) if node.key.name == "similarity_by_rank"],
}))
"""

LOAD = """
import sys
from gradsim.dataset.samples import load_file
from gradsim.study import load_study

load_file(load_study(sys.argv[1]).dataset.path)
"""

STUDY = """
dataset: {path: samples.tsv}
samples: 2
model: {name: nowhere}
settings:
  shouted: {method: upper_case, answers: true}
  prompts_only: {method: upper_case}
  refused: {method: upper_case, quality: {shouting: exclude}}
projections:
  - {kind: gaussian, total: 12}
"""


@pytest.fixture(scope="module")
def installed(project: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the documentation's package, as pip would install it, and a study that uses it."""
    folder = tmp_path_factory.mktemp("extras")
    text = (project / "docs" / "extending.md").read_text(encoding="utf-8")
    files = dict(re.findall(r"^```\w+\n# (\S+)\n(.*?)^```$", text, flags=re.DOTALL | re.MULTILINE))
    definition = tomllib.loads(files.pop("pyproject.toml"))["project"]
    (folder / "gradsim_extras").mkdir()
    (folder / "gradsim_extras" / "__init__.py").touch()
    for name, content in files.items():
        (folder / name).write_text(content, encoding="utf-8")
    metadata = folder / "gradsim_extras-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {definition['name']}\nVersion: 1.0\n")
    groups = definition["entry-points"].items()
    lines = [line for group, names in groups for line in (f"[{group}]", *(f"{k} = {v}" for k, v in names.items()))]
    (metadata / "entry_points.txt").write_text("\n".join(lines) + "\n")
    (folder / "study.yaml").write_text(STUDY)
    (folder / "samples.tsv").write_text("id\tprompt\tanswer\n1\tWhy is it so?\tBecause.\n2\tHow come?\tNobody knows.\n")
    assert len(files) == 5
    return folder


def python(installed: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    paths = os.pathsep.join([str(installed), *sys.path])
    environment = {**os.environ, "PYTHONPATH": paths, "GRADSIM_DATA": str(installed / "store")}
    return subprocess.run(
        [sys.executable, *arguments], env=environment, capture_output=True, text=True, check=False, timeout=120
    )


def test_every_example_works(installed: Path) -> None:
    process = python(installed, "-c", USE, str(installed / "study.yaml"))
    assert process.returncode == 0, process.stderr
    found = json.loads(process.stdout)
    assert found["texts"]["shouted"] == ["WHY IS IT SO?", "BECAUSE.", "HOW COME?", "NOBODY KNOWS."]
    assert found["texts"]["prompts_only"] == ["WHY IS IT SO?", "Because.", "HOW COME?", "Nobody knows."]
    assert found["texts"]["refused"] == []
    assert found["excluded"]["refused"]["1"].startswith("its prompt: in capital letters, unlike the original")
    assert sum(found["dimensions"].values()) == 12
    assert found["answer"] == [[0, 0.5], [1, 0.25]]
    assert found["title"] == "Similarity falls with the rank of the candidate"
    assert len(found["tables"]) == 3
    assert "texts_not_shouting" in found["checks"]


@pytest.mark.parametrize("module", ["upper_case", "gaussian", "similarity_by_rank", "shouting"])
def test_an_extension_can_be_imported_first(installed: Path, module: str) -> None:
    process = python(installed, "-c", f"import gradsim_extras.{module}, gradsim.plots.registry, gradsim.queries.make")
    assert process.returncode == 0, process.stderr


def test_names_that_no_package_adds_are_refused(installed: Path) -> None:
    bad = installed / "bad.yaml"
    for old, new, message in [
        ("shouting: exclude", "shouted: exclude", "unknown key 'settings.refused.quality.shouted'; did you mean"),
        ("kind: gaussian", "kind: gausian", "it should be 'sjlt', 'logra', 'srht', 'mask', 'rademacher', 'traker' or"),
        ("method: upper_case, answers", "method: uppercase, answers", "or 'upper_case'"),
        ("samples.tsv", "samples.xml", ".json, .csv or .tsv files; convert it"),
    ]:
        bad.write_text(STUDY.replace(old, new))
        process = python(installed, "-c", LOAD, str(bad))
        assert message in process.stderr, process.stderr
