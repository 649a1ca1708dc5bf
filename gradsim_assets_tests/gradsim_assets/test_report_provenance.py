"""What a report says of its provenance."""

import html
import re

import pytest

from gradsim import __version__
from gradsim.environment import code_commit

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def page(finished) -> str:
    return (finished.data / "tiny" / "report.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def facts(page: str) -> dict[str, str]:
    """Label -> value, as readers see them."""
    found = re.findall(r"<div><dt>(.*?)</dt><dd>(.*?)</dd></div>", page[page.index('<dl class="facts">') :])
    return {re.sub(r"<[^>]+>", "", label): html.unescape(value) for label, value in found}


def test_the_study_is_named_with_its_inputs(finished, facts) -> None:
    model = finished.store().provenance(finished.store().lineage.key("model"))
    wanted = {
        "Study": "tiny",
        "Study file": f"{finished.studies.name}/tiny.yaml",
        "Dataset": f"{finished.studies.name}/originals.jsonl, 20 samples",
        "Candidates (top_k)": f"{finished.study().top_k}, by BM25 of prompts",
        "Chat template": "tulu",
        "Model and revision": f"{model.model}, revision {model.revision}",
        "Precision": "float32",
        "Seed": str(finished.study().seed),
    }
    assert {label: facts.get(label) for label in wanted} == wanted
    assert model.revision


def test_the_code_and_the_time_are_those_of_the_gradients(finished, facts) -> None:
    store = finished.store()
    files = [
        store.provenance(key, partition)
        for setting in store.study.settings
        for key in [store.lineage.key("dot_products", setting)]
        for partition in store.partitions(key)
    ]
    times = sorted(file.created for file in files)
    assert facts["Gradients computed"] in {times[0], f"{times[0]} to {times[-1]}"}
    assert {file.commit for file in files} == {code_commit()}
    code = f"gradsim {__version__}, " + (f"commit {code_commit()}" if code_commit() else "commit not recorded")
    assert facts["Code of the gradients"] == facts["Code of the report"] == code
    assert facts["Report written"] >= times[-1]


def test_the_study_file_is_in_the_page(finished, page: str) -> None:
    (text,) = re.findall(r"<pre[^>]*>(.*?)</pre>", page, re.DOTALL)
    assert html.unescape(text) == (finished.studies / "tiny.yaml").read_text(encoding="utf-8")


def test_no_folder_of_this_machine_is_in_the_page(finished, page: str) -> None:
    assert str(finished.folder) not in page
