"""Tiny studies on a machine of their own."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from gradsim_assets_tests.workplace import MODEL, Workplace
from resources.slurm.site import Site


@pytest.fixture
def workplace(tmp_path: Path) -> Workplace:
    """Twenty samples and their study `tiny`; nothing is computed yet."""
    place = Workplace(tmp_path)
    place.write_rows("originals.jsonl", place.rows(20))
    place.write_study()
    return place


@pytest.fixture(scope="session")
def finished(built_once: Callable[[str, Callable[[Path], None]], Path]) -> Workplace:
    """The study `tiny` with three settings, run to its end by the command; to be read only, or copied."""
    return Workplace(built_once("finished", _run_tiny))


def _run_tiny(folder: Path) -> None:
    place = Workplace(folder)
    place.write_rows("originals.jsonl", place.rows(20))
    place.write_rows("paraphrases.jsonl", place.rows(20, question="What is the best way to {verb} my {thing}?"))
    place.write_study(
        settings={
            "paraphrased": {"method": "file", "path": "paraphrases.jsonl"},
            "word_dropout": {"method": "word_dropout"},
            "model_generated": {"method": "generate", "prompts": "paraphrased", "max_new_tokens": 4},
        },
        projections=[{"kind": "sjlt", "share": 0.1, "store_projected": True}],
    )
    output = place.gradsim("run", "tiny")
    (place.folder / "output.txt").write_text(output, encoding="utf-8")


@pytest.fixture(scope="session")
def in_float64(built_once: Callable[[str, Callable[[Path], None]], Path]) -> Workplace:
    """The study `tiny` in float64 and without projections, run to its end; to be read only."""
    return Workplace(built_once("in_float64", _run_in_float64))


def _run_in_float64(folder: Path) -> None:
    place = Workplace(folder)
    place.write_rows("originals.jsonl", place.rows(20))
    place.write_study(model={**MODEL, "precision": "float64"}, projections=[])
    place.gradsim("run", "tiny")


@pytest.fixture
def computed(finished: Workplace, tmp_path: Path) -> Workplace:
    """A copy of `finished` that a test may change."""
    return finished.copy(tmp_path)


@pytest.fixture
def site_variables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Site]:
    """Sets variables of a cluster that is never asked, beside which no others are set; gives the site."""
    for name in list(os.environ):
        if name.startswith("SLURM_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("DAGSTER_SLURM_SSH_CONTROL_DIR", str(tmp_path / "control"))

    def change(**variables: str) -> Site:
        needed = {"SLURM_SSH_HOST": "login.example.org", "SLURM_SSH_USER": "someone"}
        for name, value in {**needed, **variables}.items():
            monkeypatch.setenv(name, value)
        return Site.read()

    return change
