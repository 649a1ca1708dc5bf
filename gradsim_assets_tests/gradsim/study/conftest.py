"""Study files of the tests' own, in a project root of the tests' own."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gradsim_assets_tests.studies import study_text

DEFINITION = {
    "dataset": {"path": "originals.jsonl"},
    "samples": 60,
    "model": {"reference": {"layers": 1}},
    "settings": {"paraphrased": {"method": "file", "path": "queries.jsonl"}},
}

OURS = ("GRADSIM_DATA", "GRADSIM_STUDIES", "MT_DEVICE", "MT_MODEL_NAME", "MT_SAMPLE_SIZE")


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A project's root with an empty `studies` folder, and an environment that says nothing."""
    before = dict(os.environ)
    for variable in OURS:
        os.environ.pop(variable, None)
    monkeypatch.setattr("gradsim.environment.project_root", lambda: tmp_path)
    (tmp_path / "studies").mkdir()
    yield tmp_path
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture
def write_study(root: Path) -> Callable[..., Path]:
    """Writes `studies/NAME.yaml`: a good definition with other keys; None takes one away."""

    def write(name: str = "mine", **changes: Any) -> Path:
        definition = {key: value for key, value in {**DEFINITION, **changes}.items() if value is not None}
        path = root / "studies" / f"{name}.yaml"
        path.write_text(study_text(definition), encoding="utf-8")
        return path

    return write
