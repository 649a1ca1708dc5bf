"""An imported study as notebooks open it, which needs no model."""

from pathlib import Path

import pytest

import gradsim
from gradsim.notebook import OpenedStudy
from gradsim.published import find_published, read_published, store_published
from gradsim.tables import Store
from gradsim_assets_tests.gradsim.published.tiny import LISTS, Layout, tables_of


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory) -> Layout:
    """Two settings of four queries, written."""
    settings = {"paraphrased": tables_of(0, LISTS), "model_generated": tables_of(1, LISTS)}
    layout = Layout(tmp_path_factory.mktemp("published"), settings)
    layout.write()
    return layout


@pytest.fixture
def data_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where this environment keeps tables; its folder of studies is empty."""
    root, studies = tmp_path / "data root", tmp_path / "studies"
    studies.mkdir()
    monkeypatch.setenv("GRADSIM_DATA", str(root))
    monkeypatch.setenv("GRADSIM_STUDIES", str(studies))
    return root


@pytest.fixture
def store(layout: Layout, data_root: Path) -> Store:
    """The study `tiny`, imported; nothing is answered yet."""
    return store_published(read_published(find_published(layout.root)), data_root, "tiny").store


@pytest.fixture
def study(store: Store) -> OpenedStudy:
    return gradsim.open_study("tiny")
