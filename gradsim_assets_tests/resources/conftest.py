"""A study that nothing was computed of."""

import pytest

from gradsim.study import Study


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
