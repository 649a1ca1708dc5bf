"""How far a peer's dots are from the right ones."""

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
"""Of a layer's norms: what float32 is allowed to lose."""


class Answer(Protocol):
    """The part of a peer's result that is compared."""

    @property
    def layers(self) -> list[str]: ...

    @property
    def dots(self) -> Floats: ...


@dataclass(frozen=True)
class Reference:
    """The right numbers.

    Attributes:
        layers: every parameter, in model order.
        dots: (queries, originals, layers)
        query_self_dots: (queries, layers)
        original_self_dots: (originals, layers)
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
            that the peer gives.
        lacks: layers that it does not give.
    """

    errors: dict[str, float]
    lacks: list[str]

    @property
    def exact(self) -> list[str]:
        """Layers that are right to rounding."""
        return [layer for layer, error in self.errors.items() if error <= EXACT]

    @property
    def wrong(self) -> dict[str, float]:
        """Layers that are off by more, with their errors."""
        return {layer: error for layer, error in self.errors.items() if not error <= EXACT}

    @property
    def rounding(self) -> float:
        """Largest error of the exact layers."""
        return max((self.errors[layer] for layer in self.exact), default=0.0)


def autograd_reference(model: PreTrainedModel, queries: Sequence[Sample], originals: Sequence[Sample]) -> Reference:
    """By plain autograd, one sample at a time. Holds every gradient: for small models."""
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
    """Compare layer by layer; NaN in a peer's dots is an error of NaN, which counts as wrong."""
    errors = {}
    for position, layer in enumerate(answer.layers):
        truth = reference.layers.index(layer)
        difference = np.abs(answer.dots[:, :, position] - reference.dots[:, :, truth])
        squares = np.outer(reference.query_self_dots[:, truth], reference.original_self_dots[:, truth])
        scaled = np.divide(difference, np.sqrt(squares), out=difference.copy(), where=squares > 0)
        errors[layer] = float(scaled.max())
    return Disagreement(errors, [layer for layer in reference.layers if layer not in errors])
