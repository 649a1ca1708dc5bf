"""Predict the plan, memory and run time of a comparison without running it."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel

from gradsim.gradients.capture.batch import Batching
from gradsim.gradients.capture.capture import GradientCapture
from gradsim.gradients.capture.check import Probe, require_room
from gradsim.gradients.capture.encoding import Nodes
from gradsim.gradients.capture.layers import model_layers
from gradsim.gradients.capture.precision import Precision
from gradsim.gradients.capture.profile import estimated_profile
from gradsim.gradients.planning.alternatives import PairsToRun, alternatives_of, operations_per_byte
from gradsim.gradients.planning.plan import Plan, make_plan
from gradsim.gradients.planning.rates import Rates
from gradsim.gradients.planning.sizes import Lengths, estimated_rows_per_token
from gradsim.gradients.projection import ModelProjection, Projector, make_projections
from gradsim.models.limits import length_boundaries

Integers = NDArray[np.int64]


@dataclass(frozen=True)
class Prediction:
    """Predicted cost of a comparison.

    Attributes:
        plan: plan of the comparison, including its cost.
        weight_bytes: bytes of the model's weights on the device.
        seconds: run time in seconds; None if the device's rates are unknown.
    """

    plan: Plan
    weight_bytes: int
    seconds: float | None = None

    @property
    def memory_bytes(self) -> int:
        """Peak bytes on the device: weights, held gradients and the working memory of a pass."""
        return self.weight_bytes + self.plan.peak_bytes + self.plan.working_bytes


def predict(
    model: PreTrainedModel,
    comparison: PairsToRun,
    *,
    device: torch.device,
    precision: Precision,
    memory_budget: int,
    layers: Collection[str] | None = None,
    projectors: Sequence[Projector] = (),
    probed: Probe | None = None,
    rates: Rates | None = None,
    rerun_memorised: bool = False,
) -> Prediction:
    """Predict what `compare` would do, without running the model.

    Args:
        model: model whose gradients are compared. Weights are not read and may be on the `meta` device, in the dtype
            of `precision`.
        comparison: sample lengths and pairs.
        device: device to run on.
        precision: precision to run in.
        memory_budget: bytes for captured gradients and the working memory of a pass.
        layers: names of the layers to compare; None for all.
        projectors: random projections to compute besides the exact dots.
        probed: measured properties of the model; None to estimate them from its shapes.
        rates: measured rates of the device, if known.
        rerun_memorised: whether memorised samples run again in float64.

    Raises:
        GradientError: The model's gradients cannot be computed, or the memory budget is too small for a pair of
            samples or for the check of the gradient rules.
    """
    capture = GradientCapture(model, probed.by_autograd if probed else (), layers)
    capture.device = device  # the model may be on `meta`, which has no batch size
    require_room(capture.parameters, memory_budget)
    plan = plan_comparison(
        comparison,
        model,
        capture,
        probed or estimated_probe(model, capture),
        make_projections(projectors, {name: p.shape for name, p in model_layers(model, layers).items()}, device),
        precision,
        memory_budget=memory_budget,
        rerun_memorised=rerun_memorised,
    )
    return Prediction(plan, weight_bytes(model), rates.seconds(plan) if rates else None)


def plan_comparison(
    comparison: PairsToRun,
    model: PreTrainedModel,
    capture: GradientCapture,
    probed: Probe,
    projections: Sequence[ModelProjection],
    precision: Precision,
    *,
    memory_budget: int,
    batch_share: float = 1.0,
    rerun_memorised: bool = False,
) -> Plan:
    """Return the cheapest plan within a memory budget; see `alternatives_of` for the arguments.

    Raises:
        MemoryBudgetError: The budget is too small for a query and an original that are compared.
    """
    reduced = precision.products == "tf32" or precision.dtype == torch.bfloat16
    alternatives = alternatives_of(
        comparison,
        model,
        capture,
        probed,
        projections,
        memory_budget=memory_budget,
        batch_share=batch_share,
        reduced=reduced,
        rerun_memorised=rerun_memorised,
    )
    return make_plan(list(alternatives), memory_budget, operations_per_byte(capture.device, reduced=reduced))


def pairs_to_run(nodes: Nodes, pairs: Integers) -> PairsToRun:
    """Return the comparison of all pairs, (n, 2) positions in queries and originals; no sample may be excluded."""
    return PairsToRun(
        lengths=Lengths.of(nodes.samples),
        pairs=nodes.of_pairs(pairs),
        positions=np.arange(len(pairs)),
        queries=pairs[:, 0],
        n_queries=len(nodes.queries),
    )


def weight_bytes(model: PreTrainedModel) -> int:
    """Return the bytes of a model's parameters, counting tied parameters once."""
    return sum(parameter.nbytes for parameter in model.parameters())


def estimated_probe(model: PreTrainedModel, capture: GradientCapture) -> Probe:
    """Return the probe expected from the shapes alone, if all gradient rules hold and samples are separable."""
    rows = estimated_rows_per_token(model)
    return Probe(
        separable=True,
        rows_per_token=rows,
        profile=estimated_profile(model, capture, rows),
        batching=Batching(boundaries=length_boundaries(model.config)),
    )
