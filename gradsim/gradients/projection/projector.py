"""What `compare` is asked to project, and how."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import NoReturn

from gradsim.errors import GradientError
from gradsim.gradients.projection.dimensions import dimensions_of_total, published_dimension
from gradsim.gradients.projection.kind import LayerSketch
from gradsim.gradients.projection.randomness import stable_key
from gradsim.gradients.projection.registry import KINDS


@dataclass(frozen=True)
class Projector:
    """A random projection of every layer's gradient.

    Attributes:
        kind: a name in `KINDS`.
        dimensions: a share of each layer's parameters (a float; see `published_dimension`), a total that is spread
            over the layers (an int; see `dimensions_of_total`), or every layer's dimension by name.
        seed: of the study.
        name: under which the results stand.
        nonzeros: of each column, for `sjlt`; no more than a layer has dimensions.

    Raises:
        GradientError: a kind that is not there, or dimensions or non-zeros that make no sense.
    """

    kind: str
    dimensions: float | int | Mapping[str, int]
    seed: int
    name: str
    nonzeros: int = 1

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            self._refuse(f"is of kind {self.kind!r}: choose one of {', '.join(KINDS)}")
        if self.nonzeros < 1 or (self.nonzeros > 1 and self.kind != "sjlt"):
            self._refuse(f"of kind {self.kind} has {self.nonzeros} non-zeros a column: give 1, or more to sjlt")
        match self.dimensions:
            case Mapping():
                for layer, dimension in self.dimensions.items():
                    if dimension < 1:
                        self._refuse(f"gives layer {layer} {dimension} dimensions: give at least 1")
            case int():
                if self.dimensions < 1:
                    self._refuse(f"has {self.dimensions} dimensions in all: give at least one a layer")
            case _ if not 0 < self.dimensions <= 1:
                self._refuse(f"has a share of {self.dimensions}: give a number above 0 and at most 1")

    def layer_dimensions(self, shapes: Mapping[str, Sequence[int]]) -> dict[str, int]:
        """Dimension of every layer, given the shape of each; a layer not larger than its dimension is kept whole.

        Kinds that are made of two sides have the largest product that does not pass the dimension.

        Raises:
            GradientError: dimensions by name that name other layers or are larger than a layer; a total that is too
                small or too large.
        """
        elements = {layer: prod(shape) for layer, shape in shapes.items()}
        dimensions = {}
        for layer, wanted in self._wanted(elements).items():
            if wanted >= elements[layer]:
                dimensions[layer] = elements[layer]
                continue
            shape = tuple(shapes[layer])
            dimensions[layer] = KINDS[self.kind].of_shape(shape).dimension(shape, wanted)
        return dimensions

    def _wanted(self, elements: Mapping[str, int]) -> dict[str, int]:
        """Dimensions as asked for."""
        match self.dimensions:
            case Mapping():
                self._check_names(self.dimensions, elements)
                return {layer: self.dimensions[layer] for layer in elements}
            case int():
                try:
                    return dimensions_of_total(self.dimensions, elements)
                except GradientError as error:
                    self._refuse(f"cannot have its dimensions: {error}")
            case share:
                return {layer: published_dimension(share, n) for layer, n in elements.items()}

    def _check_names(self, dimensions: Mapping[str, int], elements: Mapping[str, int]) -> None:
        for layer in (*elements, *dimensions):
            if layer not in dimensions:
                self._refuse(f"gives layer {layer} no dimension: name every layer")
            if layer not in elements:
                self._refuse(f"names layer {layer}, which the model lacks: leave it out")
            if dimensions[layer] > elements[layer]:
                self._refuse(
                    f"gives layer {layer} {dimensions[layer]:,} dimensions, but it has {elements[layer]:,} "
                    f"elements: give at most these, which keeps it whole"
                )

    def sketch(self, layer: str, shape: Sequence[int], dimension: int) -> LayerSketch:
        """From what the projection of a layer follows."""
        key = stable_key(self.seed, self.kind, layer, dimension)
        return LayerSketch(tuple(shape), dimension, key, min(self.nonzeros, dimension))

    def _refuse(self, why: str) -> NoReturn:
        raise GradientError(f"projector {self.name!r} {why}")
