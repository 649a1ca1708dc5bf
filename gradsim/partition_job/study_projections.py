"""A study's projections, applied to the layers of its model."""

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
    """A projection of the study with its dimensions for the model.

    Attributes:
        definition: the projection's section in the study.
        dimensions: dimensions by layer.
    """

    definition: Projection
    dimensions: Mapping[str, int]

    @property
    def total(self) -> int:
        """Total dimensions of all layers."""
        return sum(self.dimensions.values())

    @property
    def key(self) -> tuple[str, int]:
        """Name and total dimensions, which identify the projection's rows."""
        return self.definition.method, self.total


def projector_of(projection: Projection, study: Study) -> Projector:
    """Return the engine's projector for a projection."""
    return Projector(projection.kind, projection.size, study.seed, projection.name, projection.nonzeros)


def study_projectors(study: Study) -> list[Projector]:
    """Return the study's distinct projectors; projections that differ only in scaling share one."""
    return [projector_of(projection, study) for projection in study.projected]


def study_projections(study: Study, shapes: Shapes) -> list[SizedProjection]:
    """Return the study's projections with their dimensions, in the study's order.

    Raises:
        GradientError: a projection does not fit the model.
        StudyError: two projections have the same name and dimensions for this model.
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


def layer_shapes(layers: pl.DataFrame) -> dict[str, tuple[int, ...]]:
    """Return the shape of each layer from the table `model` or `layers`."""
    return {layer: tuple(shape) for layer, shape in layers.select("layer", "shape").iter_rows()}


def projections_table(study: Study, layers: pl.DataFrame) -> pl.DataFrame:
    """Return the table `projections`, one row per projection and layer of the table `model` or `layers`.

    Raises:
        GradientError, StudyError: see `study_projections`.
    """
    shapes = layer_shapes(layers)
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
