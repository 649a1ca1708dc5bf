"""`gradsim init`: a study file that runs as it is, and what it refuses."""

import re
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from gradsim.dataset.samples import SAMPLES_SCHEMA
from gradsim.errors import GradsimError
from gradsim.study import HubModel, load_study
from gradsim_assets.commands.init import write_study
from gradsim_assets_tests.workplace import Workplace


@pytest.fixture
def place(workplace: Workplace, monkeypatch: pytest.MonkeyPatch) -> Workplace:
    """Twenty samples and the study `tiny`, with this process's commands."""
    for name, value in workplace.variables.items():
        monkeypatch.setenv(name, value)
    return workplace


def init(place: Workplace, data: Path, name: str = "mine", model: str = "org/model") -> str:
    write_study(name, data, model)
    return (place.studies / f"{name}.yaml").read_text(encoding="utf-8")


def test_the_file_loads_and_states_what_it_was_given(place: Workplace, capsys: pytest.CaptureFixture[str]) -> None:
    text = init(place, place.studies / "originals.jsonl")
    study = load_study("mine", place.environment)
    assert study.samples == 20
    assert list(study.settings) == ["word_dropout"]
    assert study.template == "model"
    assert isinstance(study.model, HubModel)
    assert study.model.name == "org/model"
    assert 'path: "originals.jsonl" # format messages' in text
    assert capsys.readouterr().out.splitlines() == [
        "20 samples, format messages",
        f"wrote {place.studies / 'mine.yaml'}",
        "next: gradsim plan mine, then gradsim run mine",
    ]
    assert max(map(len, text.splitlines())) <= 120


def test_what_is_a_comment_is_valid_as_well(place: Workplace) -> None:
    text = init(place, place.studies / "originals.jsonl")
    path = place.studies / "mine.yaml"
    path.write_text(re.sub(r"^( *)# (?!Next)", r"\1", text, flags=re.MULTILINE), encoding="utf-8")
    study = load_study("mine", place.environment)
    assert list(study.settings) == ["word_dropout", "paraphrased", "model_generated"]
    assert study.model.precision == "bfloat16"
    assert study.template == "tulu"


def test_data_elsewhere_and_the_columns_that_are_not_used(
    place: Workplace, tmp_path_factory: pytest.TempPathFactory, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path_factory.mktemp("elsewhere") / 'a "name": é.parquet'
    pl.DataFrame({"text": ["one two", "three"], "stars": [1, 2]}).write_parquet(data)
    init(place, data)
    study = load_study("mine", place.environment)
    assert study.dataset.model_dump()["path"] == data
    assert "not used: stars" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("tiny", None, "a study file for 'tiny' already exists; choose another name"),
        ("a b", None, "'a b' cannot be a study's name; use letters, digits and underscores"),
        ("mine", "{}\n", "columns"),
        ("mine", "{\n", "line 1 is not JSON text"),
        ("mine", "", "holds no samples; give at least one"),
        (
            "mine",
            '{"input_ids": [1, 2], "labels": [1, 2]}\n',
            "method word_dropout makes no queries of tokens; use the method file, and",
        ),
    ],
)
def test_what_is_refused(place: Workplace, name: str, content: str | None, message: str) -> None:
    data = place.studies / "originals.jsonl"
    if content is not None:
        data.write_text(content)
    before = sorted(place.studies.iterdir())
    texts = [path.read_bytes() for path in before]
    with pytest.raises(GradsimError, match=message) as refused:
        write_study(name, data, "org/model")
    assert "\n" not in str(refused.value)
    assert sorted(place.studies.iterdir()) == before
    assert [path.read_bytes() for path in before] == texts


def test_data_that_is_not_there(place: Workplace) -> None:
    with pytest.raises(GradsimError, match=r"nowhere\.jsonl: no such file; correct --data"):
        write_study("mine", place.studies / "nowhere.jsonl", "org/model")


@pytest.mark.slow
def test_it_runs_as_it_is(workplace: Workplace) -> None:
    from gradsim.models import train_reference_model

    rows: list[dict[str, Any]] = workplace.rows(20)
    samples = pl.DataFrame([(row["id"], row["messages"]) for row in rows], schema=SAMPLES_SCHEMA, orient="row")
    folder = workplace.folder / "tiny model"
    train_reference_model(samples, folder, layers=1, hidden_size=16, heads=2, vocabulary=300, positions=512, steps=1)
    data = str(workplace.studies / "originals.jsonl")
    workplace.gradsim("init", "mine", "--data", data, "--model", str(folder))
    assert workplace.study("mine").template == "tulu"  # it has no chat template
    assert "20 samples, format messages" in workplace.gradsim("plan", "mine")
    output = workplace.gradsim("run", "mine")
    assert "sources found (%)" in output
    assert "finished" in workplace.gradsim("list")
    assert "next:" not in workplace.gradsim("status", "mine")
