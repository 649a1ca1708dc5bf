"""Measure the errors of a peer's dots."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedModel

from gradsim.gradients.capture.encoding import Sample
from gradsim.gradients.reference import reference_dots, reference_gradient

Floats = NDArray[np.float64]

EXACT = 1e-5
"""Tolerance for float32, relative to the product of a layer's norms."""


class Answer(Protocol):
    """Part of a peer's result that is compared."""

    @property
    def layers(self) -> list[str]: ...

    @property
    def dots(self) -> Floats: ...


@dataclass(frozen=True)
class Reference:
    """Correct values.

    Attributes:
        layers: every parameter, in model order.
        dots: (queries, originals, layers) inner products.
        query_self_dots: (queries, layers) self dots.
        original_self_dots: (originals, layers) self dots.
    """

    layers: list[str]
    dots: Floats
    query_self_dots: Floats
    original_self_dots: Floats


@dataclass(frozen=True)
class Disagreement:
    """A peer's errors.

    Attributes:
        errors: largest |dot - reference| / (norm of the query's gradient · norm of the original's), for each layer
            that the peer returns.
        lacks: layers that the peer does not return.
    """

    errors: dict[str, float]
    lacks: list[str]

    @property
    def exact(self) -> list[str]:
        """Layers that are correct up to rounding."""
        return [layer for layer, error in self.errors.items() if error <= EXACT]

    @property
    def wrong(self) -> dict[str, float]:
        """Other layers, with their errors."""
        return {layer: error for layer, error in self.errors.items() if not error <= EXACT}

    @property
    def rounding(self) -> float:
        """Largest error of the exact layers."""
        return max((self.errors[layer] for layer in self.exact), default=0.0)


def autograd_reference(model: PreTrainedModel, queries: Sequence[Sample], originals: Sequence[Sample]) -> Reference:
    """Return the reference by plain autograd, one sample at a time; holds all gradients, so use small models."""
    query_gradients, original_gradients = (
        [reference_gradient(model, sample) for sample in samples] for samples in (queries, originals)
    )
    return Reference(
        layers=list(query_gradients[0]),
        dots=np.array([[reference_dots(a, b) for b in original_gradients] for a in query_gradients]),
        query_self_dots=np.array([reference_dots(a, a) for a in query_gradients]),
        original_self_dots=np.array([reference_dots(b, b) for b in original_gradients]),
    )


def disagreement(answer: Answer, reference: Reference) -> Disagreement:
    """Compare layer by layer; NaN in a peer's dots gives an error of NaN, which counts as wrong."""
    errors = {}
    for position, layer in enumerate(answer.layers):
        truth = reference.layers.index(layer)
        difference = np.abs(answer.dots[:, :, position] - reference.dots[:, :, truth])
        squares = np.outer(reference.query_self_dots[:, truth], reference.original_self_dots[:, truth])
        scaled = np.divide(difference, np.sqrt(squares), out=difference.copy(), where=squares > 0)
        errors[layer] = float(scaled.max())
    return Disagreement(errors, [layer for layer in reference.layers if layer not in errors])
