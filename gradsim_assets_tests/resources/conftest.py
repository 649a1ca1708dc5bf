"""A study that nothing was computed of, and servers whose jobs do what a test says."""

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from gradsim.study import Study
from resources.job_server import JobServer


@pytest.fixture(scope="session")
def new_server() -> Callable[..., JobServer]:
    """Starts a server that can run the modules of `stand_ins`."""
    path = [str(Path(__file__).with_name("stand_ins")), os.environ.get("PYTHONPATH")]
    return partial(JobServer, {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, path))})


@pytest.fixture(scope="session")
def behaving_server(new_server: Callable[..., JobServer]) -> JobServer:
    """One that all tests share; it ends with the process."""
    return new_server()


@pytest.fixture
def study(tmp_path):
    return Study.model_validate(
        {
            "name": "tiny",
            "dataset": {"path": tmp_path / "originals.jsonl"},
            "samples": 4,
            "model": {"reference": {}, "precision": "float64", "attention": "eager"},
            "settings": {"word_dropout": {"method": "word_dropout"}},
            "partition_size": 2,
        }
    )
