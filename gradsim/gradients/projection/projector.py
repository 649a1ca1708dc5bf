"""Configuration of the projections that `compare` computes."""

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
    """Configuration of a random projection of every layer's gradient.

    Attributes:
        kind: name of a kind in `KINDS`.
        dimensions: share of each layer's parameters (float; see `published_dimension`), total over all layers (int;
            see `dimensions_of_total`), or dimension of every layer by name.
        seed: seed of the study.
        name: name of the projection in results.
        nonzeros: non-zeros per column, for `sjlt`; limited to a layer's dimension.

    Raises:
        GradientError: The kind is unknown, or the dimensions or non-zeros are invalid.
    """

    kind: str
    dimensions: float | int | Mapping[str, int]
    seed: int
    name: str
    nonzeros: int = 1

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            self._refuse(f"has the unknown kind {self.kind!r}: choose one of {', '.join(KINDS)}")
        if self.nonzeros < 1 or (self.nonzeros > 1 and self.kind != "sjlt"):
            self._refuse(f"of kind {self.kind} has {self.nonzeros} non-zeros per column: set 1, or more for sjlt")
        match self.dimensions:
            case Mapping():
                for layer, dimension in self.dimensions.items():
                    if dimension < 1:
                        self._refuse(f"assigns {dimension} dimensions to layer {layer}: set at least 1")
            case int():
                if self.dimensions < 1:
                    self._refuse(f"has {self.dimensions} dimensions in total: set at least one per layer")
            case _ if not 0 < self.dimensions <= 1:
                self._refuse(f"has a share of {self.dimensions}: set a number above 0 and at most 1")

    def layer_dimensions(self, shapes: Mapping[str, Sequence[int]]) -> dict[str, int]:
        """Return the dimension of every layer, given the layer shapes by name.

        A layer whose requested dimension is at least its size keeps its size and is not projected. Two-sided kinds use
        the largest product of two dimensions up to the requested one.

        Raises:
            GradientError: Dimensions by name do not match the model's layers or exceed a layer's size, or the total is
                too small or too large.
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
        """Return the requested dimension of every layer."""
        match self.dimensions:
            case Mapping():
                self._check_names(self.dimensions, elements)
                return {layer: self.dimensions[layer] for layer in elements}
            case int():
                try:
                    return dimensions_of_total(self.dimensions, elements)
                except GradientError as error:
                    self._refuse(f"has an invalid total: {error}")
            case share:
                return {layer: published_dimension(share, n) for layer, n in elements.items()}

    def _check_names(self, dimensions: Mapping[str, int], elements: Mapping[str, int]) -> None:
        for layer in (*elements, *dimensions):
            if layer not in dimensions:
                self._refuse(f"assigns no dimension to layer {layer}: list every layer")
            if layer not in elements:
                self._refuse(f"lists layer {layer}, which the model does not have: remove it")
            if dimensions[layer] > elements[layer]:
                self._refuse(
                    f"assigns {dimensions[layer]:,} dimensions to layer {layer}, which has {elements[layer]:,} "
                    f"elements: set at most that number"
                )

    def sketch(self, layer: str, shape: Sequence[int], dimension: int) -> LayerSketch:
        """Return the parameters of a layer's projection."""
        key = stable_key(self.seed, self.kind, layer, dimension)
        return LayerSketch(tuple(shape), dimension, key, min(self.nonzeros, dimension))

    def _refuse(self, why: str) -> NoReturn:
        raise GradientError(f"projector {self.name!r} {why}")
