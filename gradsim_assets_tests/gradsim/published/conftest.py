"""Studies in the original's layout that tests spoil before they are written."""

from pathlib import Path

import pytest

from gradsim_assets_tests.gradsim.published.tiny import LISTS, Layout, tables_of


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    """Two settings of four queries, not written yet; the second has no gradient similarity."""
    settings = {"paraphrased": tables_of(0, LISTS), "model_generated": tables_of(1, LISTS)}
    del settings["model_generated"]["gradient_similarity"]
    return Layout(tmp_path / "published", settings)


@pytest.fixture
def single(layout: Layout) -> Layout:
    """The same with one setting."""
    del layout.settings["model_generated"]
    return layout
