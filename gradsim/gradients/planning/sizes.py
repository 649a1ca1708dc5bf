"""Count the memory of captured samples and the operations of captures and comparisons before the run."""

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
    """Growth of one layer's terms with the length of a sample.

    Attributes:
        elements: elements of the built gradient.
        per_token: rows of outer products per token.
        per_label: rows of outer products per scored position; used for the output head, which skips all other rows.
        width: elements of both factors of one row.
        stack: number of layers stored in one parameter, such as experts; each row belongs to one of them.
        lookups: embedding rows per token; at most `vocabulary` distinct rows are stored.
        lookup_width: elements of one embedding row.
        vocabulary: number of embedding rows.
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
        """True if the gradient can be kept as factors instead of being built."""
        return self.width > 0 or self.lookup_width > 0

    def rows(self, lengths: "Lengths") -> Integers:
        """Return the rows of outer products of each sample, (samples,)."""
        rows: Integers = self.per_token * lengths.tokens + self.per_label * lengths.labels
        return rows

    def factor_bytes(self, lengths: "Lengths", itemsize: int) -> Integers:
        """Return the bytes of each sample's factors, (samples,), including int64 token ids."""
        looked_up = self.lookups * np.minimum(lengths.tokens, self.vocabulary)
        factors: Integers = self.rows(lengths) * self.width * itemsize
        rows: Integers = looked_up * (self.lookup_width * itemsize + 8)
        return factors + rows


@dataclass(frozen=True)
class Lengths:
    """Numbers of tokens and of scored positions per sample, both (samples,).

    Scored positions span from the first to the last unmasked label, including masked positions in between.
    """

    tokens: Integers
    labels: Integers

    @classmethod
    def of(cls, samples: Sequence[Encoded]) -> "Lengths":
        """Return the lengths of encoded samples."""
        spans = [
            int(sample.positions[-1] - sample.positions[0]) + 1 if len(sample.positions) else 0 for sample in samples
        ]
        return cls(
            np.array([len(sample.tokens) for sample in samples], dtype=np.int64), np.array(spans, dtype=np.int64)
        )


def layer_shapes(
    model: PreTrainedModel, capture: GradientCapture, rows_per_token: Mapping[nn.Module, int]
) -> list[LayerShape]:
    """Return the shape of every layer.

    Args:
        model: model that the layers belong to.
        capture: gradient capture of the model.
        rows_per_token: rows per token of each module; modules that are missing here count one.
    """
    head: nn.Module | None = model.get_output_embeddings()
    shapes = [{"elements": parameter.numel()} for parameter in capture.parameters]
    for ruled in capture.ruled:
        # A module that did not run in the probe, such as an unused expert, may run for another sample.
        times = max(1, rows_per_token.get(ruled.module, 1))
        for name, layer in ruled.layers.items():
            growth = _growth(ruled.module, name, capture.parameters[layer].shape, times, is_head=ruled.module is head)
            for key, value in growth.items():
                counted = key in ("per_token", "per_label", "lookups")
                shapes[layer][key] = shapes[layer].get(key, 0) + value if counted else value
    return [LayerShape(**shape) for shape in shapes]


def estimated_rows_per_token(model: PreTrainedModel) -> dict[nn.Module, int]:
    """Return the rows per token expected from the configuration, for modules that do not have exactly one."""
    configuration = model.config.get_text_config()
    # The configuration key differs between model families.
    names = ("num_experts_per_tok", "num_experts_per_token", "moe_topk", "moe_k")
    experts = max(1, *(getattr(configuration, name, None) or 1 for name in names))
    return {
        module: len(module.down_proj) if layout.batched else experts  # type: ignore[arg-type]
        for module in model.modules()
        if (layout := stack_layout(module))
    }


def _growth(module: nn.Module, name: str, shape: torch.Size, times: int, *, is_head: bool) -> dict[str, int]:
    """Return what a module adds to the `LayerShape` of one of its parameters; empty if its rule builds the gradient."""
    stacked = stack_layout(module) is not None
    # A stack looks its biases up by expert, like embedding rows.
    if (stacked and len(shape) == 2) or (isinstance(module, nn.Embedding) and name == "weight"):
        return {"lookups": times, "lookup_width": shape[1], "vocabulary": shape[0]}
    if stacked:
        return {"per_token": times, "width": shape[1] + shape[2], "stack": shape[0]}
    if isinstance(module, nn.Linear | Conv1D) and name == "weight":
        return {"per_label": 1, "width": sum(shape)} if is_head else {"per_token": times, "width": sum(shape)}
    return {}


@dataclass(frozen=True, eq=False)
class Costs:
    """Cost of every layer as built gradient and as factors.

    Attributes:
        elements: (layers,) elements of the built gradient.
        building: (samples, layers) operations to build a gradient; zero for layers without factors.
        factor_bytes: (samples, layers) bytes of the factors; the built gradient's bytes for layers without factors.
        has_factors: (layers,) whether the gradient can be kept as factors.
        rows: (samples, layers) rows of outer products.
        width: (layers,) elements of both factors of one row.
        stack: (layers,) number of layers stored in one parameter.
        itemsize: bytes per element.
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
        """Return the costs of layers for samples of given lengths."""
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
        """Return the operations of all pairs' ghost products per layer, (layers,): 2 · T · T' · (R + C) per pair.

        In a stack, only rows of the same expert are multiplied; routing is assumed to be even.
        """
        # Most layers have equal row counts; without merging them, many layers and pairs would take gigabytes.
        different, place = np.unique(self.rows.astype(np.float64), axis=1, return_inverse=True)
        products = np.einsum("pl,pl->l", different[pairs[:, 0]], different[pairs[:, 1]], optimize=True)
        operations: Floats = 2.0 * products[place] * self.width / self.stack
        return operations


def forms(costs: Costs, pairs: Integers, *, projected: NDArray[np.bool_] | bool, per_byte: float) -> NDArray[np.bool_]:
    """Return whether to build each layer's gradient, (layers,): the cheaper form over all pairs and held bytes.

    For an R x C layer, samples i with T_i rows, P pairs, and each sample compared with itself as well:

        ghost  Σ_pairs 2 T_i T_j (R + C) + Σ_i 2 T_i² (R + C)
        built  Σ_i 2 T_i R C  [zero if a projection builds it anyway]  +  2 (P + number of samples) R C

    For equal lengths, ghost products win while a gradient is in fewer than about 2·H/T pairs, H = R·C/(R + C). All
    samples of a layer use the same form, so that one product can compare many of them.

    Args:
        costs: costs of the layers.
        pairs: (n, 2) sample indices.
        projected: (layers,) whether a projection needs the built gradient anyway.
        per_byte: operations worth spending to save one held byte; infinity selects the smaller form.
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
    # Embedding rows need hardly any operations and few bytes.
    only_rows = costs.has_factors & (costs.width == 0) & (built_bytes > factor_bytes)
    return np.where(costs.has_factors, choice & ~only_rows, True)


def sample_bytes(costs: Costs, built: NDArray[np.bool_], row_bytes: int) -> Integers:
    """Return the maximum bytes that each held sample takes, (samples,): its row plus its factors."""
    total: Integers = row_bytes + costs.factor_bytes[:, ~built].sum(axis=1)
    return total
