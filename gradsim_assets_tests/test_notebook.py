"""The notebook and the findings, on the published numbers: they run, and print what they say."""

import doctest
import json
import re
from pathlib import Path
from typing import Any

import nbclient
import nbformat
import pytest

from gradsim.analysis import QUESTIONS
from gradsim.analysis.questions import SIZES
from gradsim.notebook import OpenedStudy
from gradsim.published import find_published, read_published, store_published

NOTEBOOK = "notebooks/analysis.ipynb"
FINDINGS = "docs/findings.md"

ABSOLUTE_PATH = re.compile(r"(?<![\w.:/<])/(?:home|root|tmp|work|Users|mnt|opt|data|usr)\b|[A-Z]:\\")


@pytest.fixture(scope="module")
def stored(golden_layout: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data root with the published study, imported and answered."""
    folder = tmp_path_factory.mktemp("published")
    published = read_published(find_published(golden_layout))
    store = store_published(published, folder / "data", "published").store
    study = OpenedStudy(store)
    store.write(store.lineage.key(SIZES, room="analysis"), study.sizes)
    for setting in study.settings:
        for question in QUESTIONS:
            store.write(store.lineage.key(question, setting, "analysis"), study[setting].answer(question))
    return folder / "data"


@pytest.fixture
def data_root(stored: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same as the environment's."""
    monkeypatch.setenv("GRADSIM_DATA", str(stored))
    return stored


@pytest.fixture
def notebook(project: Path) -> Any:
    return nbformat.read(project / NOTEBOOK, as_version=4)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_notebook_prints_the_published_numbers(notebook: Any, golden: Path, data_root: Path) -> None:
    nbclient.NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(data_root)}}).execute()
    cells = {cell["id"]: cell["outputs"] for cell in notebook["cells"] if cell["cell_type"] == "code"}
    assert all(cells.values()), [name for name, outputs in cells.items() if not outputs]
    figures = {name for name, outputs in cells.items() if any("image/png" in out.get("data", ()) for out in outputs)}
    assert figures == {name for name in cells if name.endswith("-figure")}

    printed = json.loads((golden / "published/analysis/notebook_printed_values.json").read_text())["paraphrased"]
    said = {name: " ".join(out["text"] for out in outputs if "text" in out) for name, outputs in cells.items()}
    assert f"full_gradient {printed['model_score']}" in said["accuracy"]
    assert f"bm25 {printed['bm25_score']}" in said["accuracy"]
    assert str(printed["wrong_decisions"]) in said["wrong-decisions"]
    assert printed["best_layer_by_accuracy"] in said["accuracy-per-layer"]
    assert printed["layer_most_similar_to_full_gradient"] in said["similarity-to-full"]
    assert str(printed["most_divergent_examples"]) in said["divergence"]
    mean, median = (float(number) for number in said["best-similarity"].split())
    # The original sums float32 numbers.
    assert mean == pytest.approx(printed["mean_of_max_similarity"], abs=3e-7)
    assert median == pytest.approx(printed["median_of_max_similarity"], abs=3e-7)
    table = cells["component-means"][0]["data"]["text/plain"]
    for name in ("accuracy_avg_by_component", "similarity_to_full_avg_by_component"):
        assert all(str(number) in table for number in printed[name].values())


def test_the_stored_notebook_holds_no_results(notebook: Any, project: Path) -> None:
    nbformat.validate(notebook)
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert len(code) > 30
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in code)
    text = (project / NOTEBOOK).read_text(encoding="utf-8")
    assert not ABSOLUTE_PATH.search(text)
    # Names, so that a cell keeps its identity when others come and go.
    assert all(re.fullmatch(r"[a-z][a-z-]+", cell["id"]) for cell in notebook["cells"])


def test_links_of_notebook_and_findings_lead_somewhere(project: Path) -> None:
    for name in (NOTEBOOK, FINDINGS):
        text = (project / name).read_text(encoding="utf-8")
        targets = {target for target in re.findall(r"\]\(([^)#\s]+)", text) if "://" not in target}
        assert targets
        assert [target for target in targets if not (project / name).parent.joinpath(target).is_file()] == []


@pytest.mark.slow
def test_every_number_of_the_findings_is_right(project: Path, data_root: Path) -> None:
    result = doctest.testfile(str(project / FINDINGS), module_relative=False)
    assert (result.failed, result.attempted > 50) == (0, True)
