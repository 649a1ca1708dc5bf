"""The study's projections as the engine is asked for them."""

import pytest

from gradsim.errors import StudyError
from gradsim.partition_job.gradients import study_projectors
from gradsim.study import Projection, Study

SHARES = (Projection(share=0.01), Projection(share=0.05))


@pytest.fixture
def study(tmp_path) -> Study:
    return Study.model_validate(
        {
            "name": "mine",
            "dataset": {"path": tmp_path / "originals.jsonl"},
            "samples": 4,
            "model": {"name": "org/model"},
            "settings": {"dropped": {"method": "word_dropout"}},
            "projections": SHARES,
        }
    )


def test_one_projector_a_projection(study: Study) -> None:
    first, second = study_projectors(study, {"large": 1_000_000})
    assert (first.name, first.kind, first.dimensions, first.seed) == ("sjlt_1pct", "sjlt", 0.01, 42)
    assert (second.name, second.dimensions) == ("sjlt_5pct", 0.05)


def test_projections_that_a_small_model_does_not_tell_apart_are_refused(study: Study) -> None:
    with pytest.raises(StudyError) as caught:
        study_projectors(study, {"embedding": 9_600, "attention": 1_024, "mlp": 4_096})
    assert str(caught.value) == (
        "projections: sjlt_1pct and sjlt_5pct both have 1536 dimensions for this model; remove one"
    )
