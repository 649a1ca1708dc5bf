"""Enumerate ways to run a comparison: which gradients to build, which to keep as factors, and how passes run."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from transformers import PreTrainedModel

from gradsim.gradients.capture.capture import GradientCapture
from gradsim.gradients.capture.check import Probe
from gradsim.gradients.capture.layers import passed_layers
from gradsim.gradients.capture.memory import free_bytes
from gradsim.gradients.capture.profile import PassProfile, hidden_size
from gradsim.gradients.planning.plan import Alternative
from gradsim.gradients.planning.projection_cost import needed_gradients, projecting_cost
from gradsim.gradients.planning.row_layout import Layout
from gradsim.gradients.planning.schedule import Task
from gradsim.gradients.planning.sizes import (
    Costs,
    LayerShape,
    Lengths,
    estimated_rows_per_token,
    forms,
    layer_shapes,
    sample_bytes,
)
from gradsim.gradients.projection import ModelProjection

Integers = NDArray[np.int64]

# Tokens per batch. Larger matrices do not help a CPU; a GPU needs them to hide kernel launches.
_BATCH_TOKENS = {"cpu": 1024}
_BATCH_TOKENS_ON_ACCELERATOR = 16384

# A batch of several samples takes at most 1 / _BATCH_SHARE of the memory budget.
_BATCH_SHARE = 8

# GPU operations in the time that copying a byte to the host or back takes, at 20 GB/s.
_PER_SPILLED_BYTE = {"reduced": 15_000.0, "ieee": 2_500.0}

# Share of the host's free memory available for copies.
_HOST_SHARE = 0.5

# Operations worth spending to save a held byte, from none to any number; building costs a few hundred per byte.
_PER_BYTE = (0.0, 30.0, 100.0, 300.0, np.inf)


@dataclass(frozen=True)
class PairsToRun:
    """Pairs to compare, before the sizes of their gradients are known.

    Attributes:
        lengths: lengths of all samples.
        pairs: (n, 2) sample indices, query and original.
        positions: (n,) ascending identifiers of the pairs.
        queries: (n,) position of each pair's query.
        n_queries: number of queries.
    """

    lengths: Lengths
    pairs: Integers
    positions: Integers
    queries: Integers
    n_queries: int


def operations_per_byte(device: torch.device, *, reduced: bool) -> float:
    """Return roughly how many operations a device executes in the time that it reads a byte.

    Args:
        device: device to run on.
        reduced: whether products use TF32 or bfloat16.
    """
    if device.type == "cuda":
        return 120.0 if reduced else 16.0
    return 8.0


def alternatives_of(
    comparison: PairsToRun,
    model: PreTrainedModel,
    capture: GradientCapture,
    probed: Probe,
    projections: Sequence[ModelProjection],
    *,
    memory_budget: int,
    batch_share: float = 1.0,
    reduced: bool = False,
    rerun_memorised: bool = False,
) -> Iterator[Alternative]:
    """Yield the alternatives in order of preference: fewest operations first, then fewer and fewer held bytes.

    Args:
        comparison: pairs to compare.
        model: model whose gradients are compared.
        capture: gradient capture of the model.
        probed: measured or estimated properties of the model.
        projections: projections whose vectors are held besides the gradients.
        memory_budget: bytes for captured gradients and the working memory of a pass.
        batch_share: fraction of the usual batch size to use.
        reduced: whether products use TF32 or bfloat16.
        rerun_memorised: whether to reserve room to run memorised samples again in float64, on a copy of the model.
    """
    itemsize = capture.parameters[0].itemsize
    lengths = comparison.lengths
    shapes = layer_shapes(model, capture, probed.rows_per_token)
    costs = Costs.of(shapes, lengths, itemsize)
    used = np.unique(comparison.pairs)
    longest = int(lengths.tokens[used].max(initial=1))
    shortest = int(lengths.tokens[used].min(initial=longest))
    copy_bytes = _copy_bytes(shapes, capture, itemsize)
    batch_tokens = _batch_tokens(probed, longest, memory_budget, capture.device, batch_share)
    if copy_bytes:
        most_copies = memory_budget // _BATCH_SHARE // copy_bytes
        batch_tokens = min(batch_tokens, max(1, shortest * most_copies))
    needed = needed_gradients(projections, capture.layers)
    fixed = _fixed_bytes(shapes, capture, projections, needed, itemsize)
    if rerun_memorised:
        fixed += 8 * sum(shape.elements for shape in shapes)
    if batch_tokens >= 2 * shortest:
        fixed += copy_bytes * (batch_tokens // shortest)
    per_token, per_pair = pass_operations(model, capture, probed.rows_per_token)
    per_spilled_byte = _PER_SPILLED_BYTE["reduced" if reduced else "ieee"]
    host_bytes = _host_bytes(capture.device)
    parameter_shapes = {name: p.shape for name, p in zip(capture.layers, capture.parameters, strict=True)}
    for checkpoint in (False, True) if probed.profile.blocks else (False,):
        working = _working_bytes(probed.profile, longest, batch_tokens, checkpoint=checkpoint)
        if rerun_memorised:
            working = max(working, 8 // itemsize * probed.profile.nbytes(1, longest, checkpoint=checkpoint))
        seen: set[bytes] = set()
        for per_byte in _PER_BYTE:
            built = forms(costs, comparison.pairs, projected=needed, per_byte=per_byte)
            if built.tobytes() in seen:
                continue
            seen.add(built.tobytes())
            row_bytes = Layout(parameter_shapes, built.tolist(), projections).width * itemsize
            sizes = sample_bytes(costs, built, row_bytes)
            projecting = projecting_cost(projections, capture.layers, costs, built, used)
            per_sample = costs.building[:, built | needed].sum(axis=1) + projecting.operations
            capturing = lengths.tokens * (per_token + per_pair * lengths.tokens) + per_sample
            yield Alternative(
                task=Task(
                    pairs=comparison.pairs,
                    positions=comparison.positions,
                    queries=comparison.queries,
                    n_queries=comparison.n_queries,
                    sizes=sizes,
                    tokens=lengths.tokens,
                    batch_tokens=batch_tokens,
                    spill=2.0 * per_spilled_byte * sizes < capturing,
                    host_bytes=host_bytes,
                    batching=probed.batching,
                ),
                built=built,
                per_token=per_token,
                per_pair=per_pair,
                per_sample=per_sample,
                product_operations=_product_operations(costs, comparison.pairs, built),
                row_bytes=row_bytes,
                working_bytes=working + fixed,
                checkpoint=checkpoint,
                per_spilled_byte=per_spilled_byte,
                by_term=projecting.by_term,
                projected_bytes=projecting.moved_bytes,
            )


def _host_bytes(device: torch.device) -> int:
    """Return the host bytes available for spilled gradients; 0 on a CPU, which already uses host memory."""
    return 0 if device.type == "cpu" else int(_HOST_SHARE * free_bytes(torch.device("cpu")))


def pass_operations(
    model: PreTrainedModel, capture: GradientCapture, rows_per_token: Mapping[nn.Module, int]
) -> tuple[float, float]:
    """Return a pass's operations per token and per pair of tokens, without gradients of weights.

    Each weight takes two operations per token forward and two backward. Causal attention takes T² (d_k + d_v)
    operations forward and 2.5 times as many backward, because the backward pass recomputes the attention weights. The
    backward pass ends at the lowest captured layer.
    """
    whole = GradientCapture(model)
    shapes = layer_shapes(model, whole, {**estimated_rows_per_token(model), **rows_per_token})
    first = len(shapes) - len(passed_layers(model, capture.layers))
    forward = sum(map(_weights, shapes))
    # The output head is always passed, even if it is tied to the embedding, the first layer.
    backward = sum(map(_weights, shapes[first:])) + sum(_weights(shape) for shape in shapes[:first] if shape.per_label)
    configuration = model.config.get_text_config()
    attention = 2.0 * hidden_size(model) * getattr(configuration, "num_hidden_layers", 0)
    return 2.0 * (forward + backward), attention * (1.0 + 2.5 * backward / max(forward, 1.0))


def _weights(shape: LayerShape) -> float:
    """Return the number of products of a weight with one value, per token."""
    return (shape.per_token + shape.per_label) * shape.elements / shape.stack if shape.width else 0.0


def _product_operations(costs: Costs, pairs: Integers, built: NDArray[np.bool_]) -> float:
    used = np.unique(pairs)
    with_self = np.concatenate([pairs, np.column_stack([used, used])])
    return float(costs.ghost(with_self)[~built].sum() + 2.0 * len(with_self) * costs.elements[built].sum())


def _batch_tokens(probed: Probe, longest: int, memory_budget: int, device: torch.device, share: float) -> int:
    """Return the tokens per batch, including padding; 1 if the model must run one sample at a time."""
    if not probed.separable:
        return 1
    usual = int(share * _BATCH_TOKENS.get(device.type, _BATCH_TOKENS_ON_ACCELERATOR))
    per_token = probed.profile.nbytes(1, longest) / longest
    return max(1, min(usual, int(memory_budget / _BATCH_SHARE / max(per_token, 1.0))))


def _copy_bytes(shapes: Sequence[LayerShape], capture: GradientCapture, itemsize: int) -> int:
    """Return the bytes per sample of a batch while autograd computes gradients of layers without a rule.

    One layer is in memory at a time, so the largest one counts, twice: its gradient and the tensor it is made from.
    """
    return 2 * max((shapes[layer].elements for layer in capture.without_rule), default=0) * itemsize


def _working_bytes(profile: PassProfile, longest: int, batch_tokens: int, *, checkpoint: bool) -> int:
    """Return the bytes of the largest pass: the longest sample alone, or a full batch of the longest samples."""
    alone = profile.nbytes(1, longest, checkpoint=checkpoint)
    if checkpoint:
        return alone
    length = min(longest, batch_tokens)
    return max(alone, profile.nbytes(1, length) * batch_tokens // length)


def _fixed_bytes(
    shapes: Sequence[LayerShape],
    capture: GradientCapture,
    projections: Sequence[ModelProjection],
    needed: NDArray[np.bool_],
    itemsize: int,
) -> int:
    """Return the bytes of autograd gradients, of the projections, and of the largest gradient built for them."""
    by_autograd = sum(shapes[layer].elements for layer in capture.without_rule)
    largest = max((shape.elements for shape, need in zip(shapes, needed, strict=True) if need), default=0)
    return sum(projection.nbytes for projection in projections) + (by_autograd + largest) * itemsize
