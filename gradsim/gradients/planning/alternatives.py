"""Alternatives for a comparison: what is built, what is kept as factors, how passes run."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel

from gradsim.gradients.capture.capture import GradientCapture
from gradsim.gradients.capture.check import Probe
from gradsim.gradients.capture.memory import free_bytes
from gradsim.gradients.capture.profile import PassProfile, hidden_size
from gradsim.gradients.planning.plan import Alternative
from gradsim.gradients.planning.projection_cost import needed_gradients, projecting_cost
from gradsim.gradients.planning.row_layout import Layout
from gradsim.gradients.planning.schedule import Task
from gradsim.gradients.planning.sizes import Costs, LayerShape, Lengths, forms, layer_shapes, sample_bytes
from gradsim.gradients.projection import Projection

Integers = NDArray[np.int64]

# Tokens of a batch. A processor gains nothing from larger matrices; a GPU should compute and not launch.
_BATCH_TOKENS = {"cpu": 1024}
_BATCH_TOKENS_ON_ACCELERATOR = 16384

# A batch of several samples takes at most this share of the memory budget.
_BATCH_SHARE = 8

# Operations of a GPU in the time that it takes to copy a byte to the host or back: 20 GB/s.
_PER_SPILLED_BYTE = {"reduced": 15_000.0, "ieee": 2_500.0}

# Share of the host's free memory that copies may take.
_HOST_SHARE = 0.5

# Operations that saving a held byte may cost, from none to whatever it takes; building costs a few hundred.
_PER_BYTE = (0.0, 30.0, 100.0, 300.0, np.inf)


@dataclass(frozen=True)
class PairsToRun:
    """What is compared: the task of a schedule before anything is known of sizes.

    Attributes:
        lengths: of all samples.
        pairs: (n, 2) numbers of samples.
        positions: (n,) by which pairs are named.
        queries: (n,) position of each pair's query.
        n_queries: number of queries.
    """

    lengths: Lengths
    pairs: Integers
    positions: Integers
    queries: Integers
    n_queries: int


def operations_per_byte(device: torch.device, *, reduced: bool) -> float:
    """Roughly the operations that a device does while it reads a byte; `reduced`: with TF32 or bfloat16 products."""
    if device.type == "cuda":
        return 120.0 if reduced else 16.0
    return 8.0


def alternatives_of(
    comparison: PairsToRun,
    model: PreTrainedModel,
    capture: GradientCapture,
    probed: Probe,
    projections: Sequence[Projection],
    *,
    memory_budget: int,
    batch_share: float = 1.0,
    reduced: bool = False,
    rerun_memorised: bool = False,
) -> Iterator[Alternative]:
    """Yield the alternatives, the preferred first: the fewest operations, then fewer and fewer bytes.

    Args:
        comparison: what is compared.
        model: whose gradients are.
        capture: of the model.
        probed: what is known of it.
        projections: whose vectors are kept beside.
        memory_budget: bytes for captured gradients and the working memory of a pass.
        batch_share: share of the usual size that batches may have.
        reduced: whether products are TF32's or bfloat16's.
        rerun_memorised: whether memorised samples are run again in float64, beside a copy of the model in it.
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
    per_token, per_pair = pass_operations(model, shapes)
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
    """Room for copies in the host's memory, which is a processor's own."""
    return 0 if device.type == "cpu" else int(_HOST_SHARE * free_bytes(torch.device("cpu")))


def pass_operations(model: PreTrainedModel, shapes: Sequence[LayerShape]) -> tuple[float, float]:
    """Operations of a forward and backward without gradients of weights: for each token, and for every two tokens.

    Every weight costs two operations forward and two backward. Attention: T² (d_k + d_v) forward, under a causal mask,
    and two and a half times that backward, since attention weights are computed again.
    """
    weights = sum((shape.per_token + shape.per_label) * shape.elements / shape.stack for shape in shapes if shape.width)
    configuration = model.config.get_text_config()
    attention = 2.0 * hidden_size(model) * getattr(configuration, "num_hidden_layers", 0)
    return 4.0 * weights, 3.5 * attention


def _product_operations(costs: Costs, pairs: Integers, built: NDArray[np.bool_]) -> float:
    used = np.unique(pairs)
    with_self = np.concatenate([pairs, np.column_stack([used, used])])
    return float(costs.ghost(with_self)[~built].sum() + 2.0 * len(with_self) * costs.elements[built].sum())


def _batch_tokens(probed: Probe, longest: int, memory_budget: int, device: torch.device, share: float) -> int:
    """Tokens of a batch, padding included; 1, which no two samples fit, where the model runs one at a time."""
    if not probed.separable:
        return 1
    usual = int(share * _BATCH_TOKENS.get(device.type, _BATCH_TOKENS_ON_ACCELERATOR))
    per_token = probed.profile.nbytes(1, longest) / longest
    return max(1, min(usual, int(memory_budget / _BATCH_SHARE / max(per_token, 1.0))))


def _copy_bytes(shapes: Sequence[LayerShape], capture: GradientCapture, itemsize: int) -> int:
    """What each sample of a batch takes while autograd computes its gradient of the largest layer without a rule.

    Layers follow one another: a gradient goes to its place as soon as all samples have it. Beside it stands what it is
    made from.
    """
    return 2 * max((shapes[layer].elements for layer in capture.without_rule), default=0) * itemsize


def _working_bytes(profile: PassProfile, longest: int, batch_tokens: int, *, checkpoint: bool) -> int:
    """What the longest sample alone needs, or a full batch of samples as long as may be."""
    alone = profile.nbytes(1, longest, checkpoint=checkpoint)
    if checkpoint:
        return alone
    length = min(longest, batch_tokens)
    return max(alone, profile.nbytes(1, length) * batch_tokens // length)


def _fixed_bytes(
    shapes: Sequence[LayerShape],
    capture: GradientCapture,
    projections: Sequence[Projection],
    needed: NDArray[np.bool_],
    itemsize: int,
) -> int:
    """Gradients by autograd; projections, and a gradient that is built for them."""
    by_autograd = sum(shapes[layer].elements for layer in capture.without_rule)
    largest = max((shape.elements for shape, need in zip(shapes, needed, strict=True) if need), default=0)
    return sum(projection.nbytes for projection in projections) + (by_autograd + largest) * itemsize
