"""All studies at a glance, and their accuracies side by side."""

from pathlib import Path

import pytest
from polars.testing import assert_frame_equal

import gradsim
from gradsim.errors import StudyError, TableError
from gradsim.notebook import OpenedStudy
from gradsim.published import find_published, read_published, store_published
from gradsim_assets_tests.gradsim.published.tiny import Layout, tables_of

STUDY = """
dataset: {path: originals.jsonl}
samples: 4
model: {name: org/other}
settings: {dropped: {method: word_dropout}, again: {method: word_dropout}}
"""


@pytest.fixture
def studies_folder(study: OpenedStudy, tmp_path: Path) -> Path:
    """A folder with a valid study and an invalid one, beside an imported study."""
    folder = tmp_path / "studies"
    (folder / "originals.jsonl").write_text("{}")
    (folder / "mine.yaml").write_text(STUDY)
    (folder / "wrong.yaml").write_text(STUDY.replace("samples: 4", "samples: none"))
    return folder


def test_all_studies(studies_folder: Path) -> None:
    found = gradsim.studies()
    assert found["study"].to_list() == ["mine", "tiny", "wrong"]
    assert found["state"].to_list() == ["not begun", "report missing", "invalid"]
    assert found["model"].to_list() == ["org/other", "org/model", None]
    assert found["settings"].to_list() == [["dropped", "again"], ["paraphrased", "model_generated"], None]
    assert found["samples"].to_list() == [4, 4, None]
    assert found["error"][:2].null_count() == 2
    assert found["error"][2].startswith(f"{studies_folder / 'wrong.yaml'}: key 'samples' is 'none'")


def test_no_studies(data_root: Path) -> None:
    assert gradsim.studies().is_empty()
    assert gradsim.studies().columns[0] == "study"


def test_accuracies_side_by_side(study: OpenedStudy, layout: Layout, tmp_path: Path) -> None:
    lists = {"s0": ["s1", "s0"], "s1": ["s1", "s0"]}
    other = Layout(tmp_path / "other", {"paraphrased": tables_of(7, lists)})
    other.write()
    store_published(read_published(find_published(other.root)), study.store.root, "other")
    found = gradsim.compare_studies(["other", study["paraphrased"], "tiny/model-generated"])
    columns = ["study", "setting", "method", "accuracy", "low", "high", "queries", "tied"]
    assert found.columns == columns
    places = [("other", "paraphrased"), ("tiny", "paraphrased"), ("tiny", "model_generated")]
    methods = found["method"].unique(maintain_order=True).to_list()
    assert methods[0] == "full_gradient"
    assert found.select("method", "study", "setting").rows() == [
        (method, *place) for method in methods for place in places
    ]
    for name, setting in places:
        answer = gradsim.open_study(name)[setting].answer("accuracy").filter(group="all").drop("group")
        assert_frame_equal(found.filter(study=name, setting=setting).select(answer.columns), answer)
    assert set(found.filter(study="other")["queries"]) == {2}


def test_a_study_stands_for_its_settings_and_each_counts_once(study: OpenedStudy) -> None:
    found = gradsim.compare_studies(["tiny", study, study["paraphrased"], "tiny/paraphrased"])
    assert found.filter(method="full_gradient")["setting"].to_list() == ["paraphrased", "model_generated"]


def test_what_cannot_be_compared(studies_folder: Path) -> None:
    with pytest.raises(StudyError, match=r"no study 'tinny' in .*; did you mean 'tiny'"):
        gradsim.compare_studies(["tinny"])
    with pytest.raises(StudyError, match="study 'tiny' has no setting 'para'; it has: paraphrased, model_generated"):
        gradsim.compare_studies(["tiny/para"])
    with pytest.raises(StudyError, match="no study is named; name some"):
        gradsim.compare_studies([])
    with (
        pytest.warns(UserWarning, match="is stale, or its inputs are missing"),
        pytest.raises(TableError, match=r"mine/dropped/\w+/\w+ is missing in .*`gradsim run mine --setting dropped`$"),
    ):
        gradsim.compare_studies(["mine"])
