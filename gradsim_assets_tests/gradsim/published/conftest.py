"""Studies in the original layout, for tests to modify before writing them."""

from pathlib import Path

import pytest

from gradsim_assets_tests.gradsim.published.tiny import LISTS, Layout, tables_of


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    """Return two unwritten settings of four queries; the second has no gradient similarities."""
    settings = {"paraphrased": tables_of(0, LISTS), "model_generated": tables_of(1, LISTS)}
    del settings["model_generated"]["gradient_similarity"]
    return Layout(tmp_path / "published", settings)


@pytest.fixture
def single(layout: Layout) -> Layout:
    """Return `layout` with its first setting only."""
    del layout.settings["model_generated"]
    return layout
