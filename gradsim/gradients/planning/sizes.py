"""What a captured sample takes, and what its capture and its comparisons cost, counted before the run."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from gradsim.gradients.capture.capture import GradientCapture
from gradsim.gradients.capture.encoding import Encoded
from gradsim.gradients.rules.experts import stack_layout

Integers = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class LayerShape:
    """How one layer's terms grow with a sample.

    Attributes:
        elements: elements of the built gradient.
        per_token: rows of outer products for each token.
        per_label: rows of outer products for each unmasked label: the output head's other rows are left out.
        width: elements of both factors of one row.
        stack: layers that lie in one parameter, as a mixture's experts do; each row belongs to one of them.
        lookups: embedding rows for each token; never more different ones than `vocabulary`.
        lookup_width: elements of one embedding row.
        vocabulary: rows of the embedding.
    """

    elements: int
    per_token: int = 0
    per_label: int = 0
    width: int = 0
    stack: int = 1
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
    """Tokens and scored positions of each sample, (samples,) both.

    Scored positions run from the first unmasked label to the last: masked ones between count too.
    """

    tokens: Integers
    labels: Integers

    @classmethod
    def of(cls, samples: Sequence[Encoded]) -> "Lengths":
        """The lengths of samples."""
        spans = [
            int(sample.positions[-1] - sample.positions[0]) + 1 if len(sample.positions) else 0 for sample in samples
        ]
        return cls(
            np.array([len(sample.tokens) for sample in samples], dtype=np.int64), np.array(spans, dtype=np.int64)
        )


def layer_shapes(
    model: PreTrainedModel, capture: GradientCapture, rows_per_token: Mapping[nn.Module, int]
) -> list[LayerShape]:
    """The shape of every layer, given how often modules run for each token where that is known."""
    head: nn.Module | None = model.get_output_embeddings()
    shapes = [{"elements": parameter.numel()} for parameter in capture.parameters]
    for ruled in capture.ruled:
        # An expert that has not run yet may run for another sample.
        times = max(1, rows_per_token.get(ruled.module, 1))
        for name, layer in ruled.layers.items():
            growth = _growth(ruled.module, name, capture.parameters[layer].shape, times, is_head=ruled.module is head)
            for key, value in growth.items():
                counted = key in ("per_token", "per_label", "lookups")
                shapes[layer][key] = shapes[layer].get(key, 0) + value if counted else value
    return [LayerShape(**shape) for shape in shapes]


def _growth(module: nn.Module, name: str, shape: torch.Size, times: int, *, is_head: bool) -> dict[str, int]:
    """What one module adds to the `LayerShape` of one of its parameters; nothing where its rule builds."""
    stacked = stack_layout(module) is not None
    # The biases of a stack are looked up by expert.
    if (stacked and len(shape) == 2) or (isinstance(module, nn.Embedding) and name == "weight"):
        return {"lookups": times, "lookup_width": shape[1], "vocabulary": shape[0]}
    if stacked:
        return {"per_token": times, "width": shape[1] + shape[2], "stack": shape[0]}
    if isinstance(module, nn.Linear | Conv1D) and name == "weight":
        return {"per_label": 1, "width": sum(shape)} if is_head else {"per_token": times, "width": sum(shape)}
    return {}


@dataclass(frozen=True, eq=False)
class Costs:
    """What every layer costs in either form.

    Attributes:
        elements: (layers,) of the built gradient.
        building: (samples, layers) multiplications and additions to build a gradient; zero where there are no factors.
        factor_bytes: (samples, layers); as many as the built gradient where there are no factors.
        has_factors: (layers,) whether a gradient can be kept as factors.
        rows: (samples, layers) of outer products.
        width: (layers,) elements of both factors of one row.
        stack: (layers,) layers that lie in one parameter.
        itemsize: bytes of an element.
    """

    elements: Integers
    building: Floats
    factor_bytes: Integers
    has_factors: NDArray[np.bool_]
    rows: Integers
    width: Integers
    stack: Integers
    itemsize: int

    @classmethod
    def of(cls, shapes: Sequence[LayerShape], lengths: Lengths, itemsize: int) -> "Costs":
        """Count them."""
        elements = np.array([shape.elements for shape in shapes], dtype=np.int64)
        has_factors = np.array([shape.has_factors for shape in shapes])
        stack = np.array([shape.stack for shape in shapes], dtype=np.int64)
        rows = np.stack([shape.rows(lengths) for shape in shapes], axis=1)
        factors = np.stack([shape.factor_bytes(lengths, itemsize) for shape in shapes], axis=1)
        return cls(
            elements=elements,
            building=2.0 * rows.astype(np.float64) * elements / stack,
            factor_bytes=np.where(has_factors, factors, elements * itemsize),
            has_factors=has_factors,
            rows=rows,
            width=np.array([shape.width for shape in shapes], dtype=np.int64),
            stack=stack,
            itemsize=itemsize,
        )

    def ghost(self, pairs: Integers) -> Floats:
        """(layers,) operations of all pairs' ghost products: 2 · T · T' · (R + C) each.

        Rows of a stack meet only those of the same expert; routing is taken to be even.
        """
        # Most layers have as many rows as others: hundreds of layers and a million pairs would take gigabytes.
        different, place = np.unique(self.rows.astype(np.float64), axis=1, return_inverse=True)
        products = np.einsum("pl,pl->l", different[pairs[:, 0]], different[pairs[:, 1]], optimize=True)
        operations: Floats = 2.0 * products[place] * self.width / self.stack
        return operations


def forms(costs: Costs, pairs: Integers, *, projected: NDArray[np.bool_] | bool, per_byte: float) -> NDArray[np.bool_]:
    """(layers,) whether to build: what costs least over all pairs, bytes that are held included.

    For a layer of R x C, samples i of T_i rows and P pairs, each sample compared with itself as well:

        ghost  Σ_pairs 2 T_i T_j (R + C) + Σ_i 2 T_i² (R + C)
        built  Σ_i 2 T_i R C  [nothing where a projection builds it anyway]  +  2 (P + number of samples) R C

    which for equal lengths is DESIGN.md's rule: ghost while a gradient is in fewer than about 2·H/T pairs,
    H = R·C/(R + C). One form for all samples of a layer, so that many can be compared in one product.

    Args:
        costs: of the layers.
        pairs: (n, 2) samples.
        projected: (layers,) whether a projection needs the built gradient in any case.
        per_byte: operations that are worth saving one held byte of every sample; infinite: the smallest form.
    """
    used = np.unique(pairs)
    with_self = np.concatenate([pairs, np.column_stack([used, used])])
    building = np.where(projected, 0.0, costs.building[used].sum(axis=0))
    built = building + 2.0 * len(with_self) * costs.elements
    ghost = costs.ghost(with_self)
    built_bytes = float(len(used) * costs.itemsize) * costs.elements
    factor_bytes = costs.factor_bytes[used].sum(axis=0).astype(np.float64)
    if np.isinf(per_byte):
        choice = built_bytes <= factor_bytes
    else:
        choice = built + per_byte * built_bytes <= ghost + per_byte * factor_bytes
    # What is only looked up has no products to speak of, and few bytes.
    only_rows = costs.has_factors & (costs.width == 0) & (built_bytes > factor_bytes)
    return np.where(costs.has_factors, choice & ~only_rows, True)


def sample_bytes(costs: Costs, built: NDArray[np.bool_], row_bytes: int) -> Integers:
    """(samples,) most bytes that each sample takes when held: a row for all that is built, and factors."""
    total: Integers = row_bytes + costs.factor_bytes[:, ~built].sum(axis=1)
    return total
