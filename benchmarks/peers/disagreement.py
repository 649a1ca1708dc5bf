"""Measure the errors of a package's dots, layer by layer and for each structure of a model."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from peers.exchange import MASKED, SUM
from transformers import PreTrainedModel

from gradsim.gradients.capture.encoding import Sample
from gradsim.gradients.reference import reference_dots, reference_gradient

Floats = NDArray[np.float64]

EXACT = 1e-5
"""Tolerance for float32, relative to the product of a layer's norms."""


class Answer(Protocol):
    """Part of a package's result that is compared: layers, joined by `SUM` if one number stands for several."""

    @property
    def layers(self) -> list[str]: ...

    @property
    def dots(self) -> Floats: ...


@dataclass(frozen=True)
class Reference:
    """Correct values; NaN for a sample without labels, whose mean loss does not exist.

    Attributes:
        layers: names of the parameters that are compared, in model order.
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
    """A package's errors.

    Attributes:
        errors: largest |dot - reference| / (norm of the query's gradient · norm of the original's), for each layer
            that the package returns. NaN in its dots gives NaN, and any number but 0 where the reference is NaN
            gives infinity.
        summed: layers with a number that is the sum of several layers' dots; their errors are those of the sum.
        zeros: layers with a dot of 0 where the reference is NaN.
        lacks: layers that the package does not return.
    """

    errors: dict[str, float]
    summed: list[str]
    zeros: list[str]
    lacks: list[str]

    def cell(self, layers: Collection[str], tolerance: float = EXACT) -> "Cell":
        """Return the result for some layers, such as those of one structure."""
        found = {layer: error for layer, error in self.errors.items() if layer in layers}
        worst = max(found, key=lambda layer: np.nan_to_num(found[layer], nan=np.inf), default="")
        if worst and not found[worst] <= tolerance:
            return Cell("wrong", found[worst], f"worst in `{worst}`")
        if set(layers).intersection(self.lacks):
            return Cell("missing", None, _share(self.lacks, layers))
        if set(layers).intersection(self.zeros):
            return Cell("zero", found[worst], "0 for the pairs of the query without labels")
        if set(layers).intersection(self.summed):
            return Cell("sum", found[worst], f"one number for weight and bias in {_share(self.summed, layers)}")
        return Cell("pass", found[worst])


def _share(some: Collection[str], layers: Collection[str]) -> str:
    return f"{len(set(layers).intersection(some))} of {len(layers)} layers"


@dataclass(frozen=True)
class Cell:
    """Result of a package for the layers of one structure.

    Attributes:
        outcome: "pass"; "sum" if the dots are right, but some only as sums of several layers' dots; "zero" if they are
            right, but 0 where no number is; "wrong"; "missing"; "failed"; "not run"; "not installed".
        error: worst error of the structure's layers, if the package returns them.
        reason: why it did not pass, in one line.
    """

    outcome: str
    error: float | None = None
    reason: str = ""

    def __str__(self) -> str:
        return self.outcome if self.error is None or not np.isfinite(self.error) else f"{self.outcome} {self.error:.0e}"


def by_structure(structures: Mapping[str, str]) -> dict[str, list[str]]:
    """Return the layers of each structure, from the structure of each layer."""
    return {
        structure: [layer for layer, of_layer in structures.items() if of_layer == structure]
        for structure in dict.fromkeys(structures.values())
    }


def autograd_reference(
    model: PreTrainedModel,
    queries: Sequence[Sample],
    originals: Sequence[Sample],
    layers: Collection[str] | None = None,
) -> Reference:
    """Return the reference by plain autograd in the model's format, one sample at a time.

    All gradients are held, so use small models.
    """
    query_gradients, original_gradients = (
        [reference_gradient(model, sample, layers) for sample in samples] for samples in (queries, originals)
    )
    query_exists, original_exists = (
        np.array([1.0 if set(sample.labels[1:]) - {MASKED} else np.nan for sample in samples])
        for samples in (queries, originals)
    )
    dots = np.array([[reference_dots(a, b) for b in original_gradients] for a in query_gradients])
    query_self_dots = np.array([reference_dots(a, a) for a in query_gradients])
    original_self_dots = np.array([reference_dots(b, b) for b in original_gradients])
    return Reference(
        layers=list(query_gradients[0]),
        dots=dots * np.outer(query_exists, original_exists)[..., None],
        query_self_dots=query_self_dots * query_exists[:, None],
        original_self_dots=original_self_dots * original_exists[:, None],
    )


def disagreement(answer: Answer, reference: Reference) -> Disagreement:
    """Compare layer by layer."""
    errors: dict[str, float] = {}
    summed: list[str] = []
    zeros: list[str] = []
    for position, name in enumerate(answer.layers):
        layers = name.split(SUM)
        truths = [reference.layers.index(layer) for layer in layers]
        found, truth = answer.dots[:, :, position], reference.dots[:, :, truths].sum(-1)
        squares = np.outer(
            reference.query_self_dots[:, truths].sum(-1), reference.original_self_dots[:, truths].sum(-1)
        )
        difference = np.abs(found - truth)
        scaled = np.divide(difference, np.sqrt(squares), out=difference.copy(), where=squares > 0)
        without_value = found[np.isnan(truth)]
        scaled[np.isnan(truth)] = np.where(np.isnan(without_value) | (without_value == 0), 0.0, np.inf)
        errors |= dict.fromkeys(layers, float(scaled.max()))
        summed += layers if len(layers) > 1 else []
        zeros += layers if (without_value == 0).any() else []
    return Disagreement(errors, summed, zeros, [layer for layer in reference.layers if layer not in errors])
