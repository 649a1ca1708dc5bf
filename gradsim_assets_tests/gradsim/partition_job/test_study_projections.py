"""A study's projections on a model's layers."""

import polars as pl
import pytest

from gradsim.errors import StudyError
from gradsim.gradients.projection import KINDS
from gradsim.partition_job.study_projections import projections_table, study_projections, study_projectors
from gradsim.study import Projection, Study
from gradsim.study.definition import PROJECTION_KINDS

SHARES = (Projection(share=0.01), Projection(share=0.05))
SHAPES = {"large": (1000, 1000), "small": (20, 10)}


def study_of(*projections: Projection) -> Study:
    return Study.model_validate(
        {
            "name": "mine",
            "dataset": {"path": "originals.jsonl"},
            "samples": 4,
            "model": {"name": "org/model"},
            "settings": {"dropped": {"method": "word_dropout"}},
            "projections": projections,
        }
    )


def test_studies_know_every_kind() -> None:
    assert set(PROJECTION_KINDS) == set(KINDS)


def test_one_projector_a_projection() -> None:
    first, second = study_projectors(study_of(*SHARES))
    assert (first.name, first.kind, first.dimensions, first.seed) == ("sjlt_1pct", "sjlt", 0.01, 42)
    assert (second.name, second.dimensions) == ("sjlt_5pct", 0.05)


def test_scalings_share_a_projector() -> None:
    study = study_of(Projection(share=0.01, scaling="as_published"), *SHARES)
    assert [each.name for each in study_projectors(study)] == ["sjlt_1pct", "sjlt_5pct"]
    assert [each.key for each in study_projections(study, SHAPES)] == [
        ("sjlt_as_published", 10_440),
        ("sjlt", 10_440),
        ("sjlt", 50_376),
    ]


@pytest.mark.parametrize(
    ("projection", "dimensions", "nonzeros"),
    [
        (Projection(total=500, nonzeros=2), 500, 2),
        (Projection(kind="mask", dimensions={"large": 9, "small": 200}), {"large": 9, "small": 200}, 1),
    ],
)
def test_sizes_are_handed_on(projection: Projection, dimensions: object, nonzeros: int) -> None:
    (projector,) = study_projectors(study_of(projection))
    assert (projector.dimensions, projector.nonzeros) == (dimensions, nonzeros)


def test_projections_that_a_small_model_does_not_tell_apart_are_refused() -> None:
    shapes = {"embedding": (300, 32), "attention": (32, 32), "mlp": (128, 32)}
    with pytest.raises(StudyError) as caught:
        study_projections(study_of(*SHARES), shapes)
    assert str(caught.value) == (
        "projections: sjlt_1pct and sjlt_5pct both have 1536 dimensions for this model; remove one"
    )


def test_the_table_names_every_layers_dimension() -> None:
    model = pl.DataFrame({"layer": list(SHAPES), "shape": [list(shape) for shape in SHAPES.values()]})
    table = projections_table(study_of(Projection(kind="logra", share=0.01)), model)
    # 10,240 dimensions become 101 x 101; what is not larger than 512 is kept whole.
    assert table.rows() == [
        ("logra", 10_401, "logra", "unbiased", "logra_1pct", "large", 1_000_000, 10_201),
        ("logra", 10_401, "logra", "unbiased", "logra_1pct", "small", 200, 200),
    ]
    assert projections_table(study_of(), model).schema == table.schema
