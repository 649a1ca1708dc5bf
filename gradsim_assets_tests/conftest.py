"""Fixtures that every test may use."""

import os
from pathlib import Path

import pytest
from hypothesis import settings

pytest_plugins = ["gradsim_assets_tests.labs"]

# Machines are shared and noisy: no test asserts a time, these neither.
settings.register_profile("gradsim", deadline=None)
settings.load_profile("gradsim")

# No test asks the Hub. huggingface_hub reads this once, when the first test imports it.
os.environ["HF_HUB_OFFLINE"] = "1"

PROJECT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def project() -> Path:
    """The root of the checkout."""
    return PROJECT


@pytest.fixture(scope="session")
def golden() -> Path:
    """The folder of published and reference data, which is not part of the project."""
    folder = Path(os.environ.get("GRADSIM_GOLDEN", PROJECT / "../shared/golden")).resolve()
    if not (folder / "README.md").is_file():
        pytest.skip(f"golden data: {folder} is absent (set GRADSIM_GOLDEN)")
    return folder
