"""A study's projections on the layers of its model."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod

import polars as pl

from gradsim.errors import StudyError
from gradsim.gradients import Projector
from gradsim.study import Projection, Study
from gradsim.tables import SCHEMAS

Shapes = Mapping[str, Sequence[int]]


@dataclass(frozen=True)
class SizedProjection:
    """One of the study's projections, with the dimensions that it has on the model.

    Attributes:
        definition: in the study.
        dimensions: of each layer.
    """

    definition: Projection
    dimensions: Mapping[str, int]

    @property
    def total(self) -> int:
        """Dimensions of all layers together."""
        return sum(self.dimensions.values())

    @property
    def key(self) -> tuple[str, int]:
        """What its rows are told apart by: its name and its dimensions."""
        return self.definition.method, self.total


def projector_of(projection: Projection, study: Study) -> Projector:
    """A projection as the engine wants it."""
    return Projector(projection.kind, projection.size, study.seed, projection.name, projection.nonzeros)


def study_projectors(study: Study) -> list[Projector]:
    """The projectors whose numbers the study's projections need; scalings share them."""
    return [projector_of(projection, study) for projection in study.projected]


def study_projections(study: Study, shapes: Shapes) -> list[SizedProjection]:
    """The study's projections in their order.

    Raises:
        GradientError: one does not fit the model.
        StudyError: two of them are the same for this model, whose layers are too small to tell them apart.
    """
    projections = [
        SizedProjection(projection, projector_of(projection, study).layer_dimensions(shapes))
        for projection in study.projections
    ]
    names: dict[tuple[str, int], str] = {}
    for each in projections:
        if (first := names.setdefault(each.key, each.definition.name)) != each.definition.name:
            raise StudyError(
                f"projections: {first} and {each.definition.name} both have {each.total} dimensions for this model; "
                "remove one"
            )
    return projections


def model_shapes(model: pl.DataFrame) -> dict[str, tuple[int, ...]]:
    """Shape of each layer, from the table `model`."""
    return {layer: tuple(shape) for layer, shape in model.select("layer", "shape").iter_rows()}


def projections_table(study: Study, model: pl.DataFrame) -> pl.DataFrame:
    """The table `projections`: one row a projection and layer.

    Raises:
        GradientError, StudyError: as `study_projections`.
    """
    shapes = model_shapes(model)
    rows = [
        {
            "projection": each.definition.method,
            "dimension": each.total,
            "kind": each.definition.kind,
            "scaling": each.definition.scaling,
            "projector": each.definition.name,
            "layer": layer,
            "parameters": prod(shapes[layer]),
            "layer_dimension": dimension,
        }
        for each in study_projections(study, shapes)
        for layer, dimension in each.dimensions.items()
    ]
    return pl.DataFrame(rows, schema=SCHEMAS["projections"].empty().schema)
