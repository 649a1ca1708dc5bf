"""What a captured sample takes, and which form of a layer's gradient is cheaper, counted before the run."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from gradsim.gradients.capture import GradientCapture
from gradsim.gradients.encoding import Encoded

Integers = NDArray[np.int64]


@dataclass(frozen=True)
class LayerShape:
    """How one layer's terms grow with a sample.

    Attributes:
        elements: elements of the built gradient.
        per_token: rows of outer products for each token.
        per_label: rows of outer products for each unmasked label: the output head's other rows are zero.
        width: elements of both factors of one row.
        lookups: embedding rows for each token; never more different ones than `vocabulary`.
        lookup_width: elements of one embedding row.
        vocabulary: rows of the embedding.
    """

    elements: int
    per_token: int = 0
    per_label: int = 0
    width: int = 0
    lookups: int = 0
    lookup_width: int = 0
    vocabulary: int = 0

    @property
    def has_factors(self) -> bool:
        """Whether the gradient can be kept in another form than built."""
        return self.width > 0 or self.lookup_width > 0

    def rows(self, lengths: "Lengths") -> Integers:
        """(samples,) rows of outer products of each sample."""
        rows: Integers = self.per_token * lengths.tokens + self.per_label * lengths.labels
        return rows

    def factor_bytes(self, lengths: "Lengths", itemsize: int) -> Integers:
        """(samples,) bytes of each sample's factors; token ids are int64."""
        looked_up = self.lookups * np.minimum(lengths.tokens, self.vocabulary)
        factors: Integers = self.rows(lengths) * self.width * itemsize
        rows: Integers = looked_up * (self.lookup_width * itemsize + 8)
        return factors + rows


@dataclass(frozen=True)
class Lengths:
    """Tokens and unmasked labels of each sample, (samples,) both."""

    tokens: Integers
    labels: Integers

    @classmethod
    def of(cls, samples: list[Encoded]) -> "Lengths":
        """The lengths of samples."""
        return cls(
            np.array([len(sample.tokens) for sample in samples], dtype=np.int64),
            np.array([len(sample.positions) for sample in samples], dtype=np.int64),
        )


def layer_shapes(
    model: PreTrainedModel, capture: GradientCapture, rows_per_token: Mapping[nn.Module, int]
) -> list[LayerShape]:
    """The shape of every layer, given how often modules run for each token where that is known."""
    head: nn.Module | None = model.get_output_embeddings()
    shapes = [{"elements": parameter.numel()} for parameter in capture.parameters]
    for ruled in capture.ruled:
        if "weight" not in ruled.layers:
            continue
        layer = ruled.layers["weight"]
        weight, shape = capture.parameters[layer], shapes[layer]
        # An expert that has not run yet may run for another sample.
        times = rows_per_token.get(ruled.module, 1)
        if isinstance(ruled.module, nn.Linear | Conv1D):
            kind = "per_label" if ruled.module is head else "per_token"
            shape["width"] = sum(weight.shape)
        elif isinstance(ruled.module, nn.Embedding):
            kind = "lookups"
            shape["vocabulary"], shape["lookup_width"] = weight.shape
        else:
            continue
        shape[kind] = shape.get(kind, 0) + times
    return [LayerShape(**shape) for shape in shapes]


def fastest_forms(shapes: list[LayerShape], lengths: Lengths, pairs: Integers, *, projected: bool) -> NDArray[np.bool_]:
    """(samples, layers) whether to build: what needs the fewest multiplications over all pairs.

    For a layer of R x C, samples i of T_i rows and P pairs, each sample compared with itself as well:

        ghost  Σ_pairs T_i T_j (R + C) + Σ_i T_i² (R + C)
        built  Σ_i T_i R C  [nothing where a projection builds it anyway]  +  (P + number of samples) R C

    which for equal lengths is DESIGN.md's rule: ghost while a gradient is in fewer than about 2·H/T pairs,
    H = R·C/(R + C). One form for all samples of a layer: a product of mixed forms costs as much as building. A layer
    that is only an embedding keeps its rows.
    """
    used = np.unique(pairs)
    forms = np.zeros((len(lengths.tokens), len(shapes)), dtype=bool)
    for layer, shape in enumerate(shapes):
        rows = shape.rows(lengths).astype(np.float64)
        products = (rows[pairs[:, 0]] * rows[pairs[:, 1]]).sum() + (rows[used] ** 2).sum()
        ghost = products * shape.width
        building = 0.0 if projected else rows[used].sum() * shape.elements
        built = building + (len(pairs) + len(used)) * shape.elements
        forms[:, layer] = not shape.has_factors or (shape.width > 0 and built <= ghost)
    return forms


def smallest_forms(shapes: list[LayerShape], lengths: Lengths, itemsize: int) -> NDArray[np.bool_]:
    """(samples, layers) whether to build: what takes the fewest bytes."""
    forms = np.zeros((len(lengths.tokens), len(shapes)), dtype=bool)
    for layer, shape in enumerate(shapes):
        built = shape.elements * itemsize
        forms[:, layer] = not shape.has_factors or built <= shape.factor_bytes(lengths, itemsize)
    return forms


def sample_bytes(shapes: list[LayerShape], lengths: Lengths, forms: NDArray[np.bool_], itemsize: int) -> Integers:
    """(samples,) most bytes that each captured sample takes in given forms."""
    total = np.zeros(len(lengths.tokens), dtype=np.int64)
    for layer, shape in enumerate(shapes):
        built = shape.elements * itemsize
        total += np.where(forms[:, layer], built, shape.factor_bytes(lengths, itemsize))
    return total


def pass_bytes(shapes: list[LayerShape], tokens: int, vocabulary: int, itemsize: int) -> int:
    """Roughly what one forward and backward of a sample needs on top of what is kept.

    Inputs and output gradients of every module, as much again for what autograd saves between them, four copies of the
    logits, and the largest gradient, built and summed.
    """
    factors = sum(
        (shape.per_token + shape.per_label) * shape.width + shape.lookups * shape.lookup_width for shape in shapes
    )
    largest = max(shape.elements for shape in shapes)
    return (tokens * (2 * factors + 4 * vocabulary) + 2 * largest) * itemsize
