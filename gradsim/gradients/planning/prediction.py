"""What a comparison will take before it runs: the plan that it would make, and its time at measured rates."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel

from gradsim.gradients.capture.batch import Batching
from gradsim.gradients.capture.capture import GradientCapture
from gradsim.gradients.capture.check import Probe, require_room
from gradsim.gradients.capture.encoding import Nodes
from gradsim.gradients.capture.precision import Precision
from gradsim.gradients.capture.profile import estimated_profile
from gradsim.gradients.planning.alternatives import PairsToRun, alternatives_of, operations_per_byte
from gradsim.gradients.planning.plan import Plan, make_plan
from gradsim.gradients.planning.rates import Rates
from gradsim.gradients.planning.sizes import Lengths
from gradsim.gradients.projection import Projection, Projector, make_projections
from gradsim.gradients.rules.experts import stack_layout
from gradsim.models.limits import length_boundaries

Integers = NDArray[np.int64]


@dataclass(frozen=True)
class Prediction:
    """What a comparison will take.

    Attributes:
        plan: how it would be carried out, and what that costs.
        weight_bytes: of the model on the device.
        seconds: how long it takes; None where no rates are known.
    """

    plan: Plan
    weight_bytes: int
    seconds: float | None = None

    @property
    def memory_bytes(self) -> int:
        """Most bytes on the device: the model, captured gradients, and the pass that captures more."""
        return self.weight_bytes + self.plan.peak_bytes + self.plan.working_bytes


def predict(
    model: PreTrainedModel,
    comparison: PairsToRun,
    *,
    device: torch.device,
    precision: Precision,
    memory_budget: int,
    projectors: Sequence[Projector] = (),
    probed: Probe | None = None,
    rates: Rates | None = None,
    rerun_memorised: bool = False,
) -> Prediction:
    """The plan that `compare` would make, without running anything.

    Args:
        model: whose gradients are compared; its weights are not looked at and may be on the `meta` device, in the
            format of `precision`.
        comparison: lengths of the samples, and the pairs.
        device: where it would run.
        precision: in which it would run.
        memory_budget: bytes for captured gradients and the working memory of a pass.
        projectors: random projections beside the exact dots.
        probed: what is known of the model; None: estimated from its shapes.
        rates: of the device, if known.
        rerun_memorised: whether memorised samples are run again in float64.

    Raises:
        GradientError: the model's gradients cannot be computed, or a query and an original, or the check of its
            rules, do not fit the memory.
    """
    capture = GradientCapture(model, probed.by_autograd if probed else ())
    capture.device = device  # not the model's own: `meta` has no batch size
    require_room(capture.parameters, memory_budget)
    plan = plan_comparison(
        comparison,
        model,
        capture,
        probed or estimated_probe(model, capture),
        make_projections(projectors, {name: p.shape for name, p in model.named_parameters()}, device),
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
    projections: Sequence[Projection],
    precision: Precision,
    *,
    memory_budget: int,
    batch_share: float = 1.0,
    rerun_memorised: bool = False,
) -> Plan:
    """The cheapest plan within a memory budget; arguments as of `alternatives_of`.

    Raises:
        GradientError: a query and an original that are compared do not fit together.
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
    """All pairs, (n, 2) positions in queries and originals, of samples that are all good."""
    return PairsToRun(
        lengths=Lengths.of(nodes.samples),
        pairs=nodes.of_pairs(pairs),
        positions=np.arange(len(pairs)),
        queries=pairs[:, 0],
        n_queries=len(nodes.queries),
    )


def weight_bytes(model: PreTrainedModel) -> int:
    """Bytes of a model's parameters, tied ones once."""
    return sum(parameter.nbytes for parameter in model.parameters())


def estimated_probe(model: PreTrainedModel, capture: GradientCapture) -> Probe:
    """Return what the check would find if all rules hold and samples can be told apart, from the shapes alone."""
    experts = _experts_per_token(model)
    rows = {
        ruled.module: len(ruled.module.down_proj) if layout.batched else experts  # type: ignore[arg-type]
        for ruled in capture.ruled
        if (layout := stack_layout(ruled.module))
    }
    return Probe(
        separable=True,
        rows_per_token=rows,
        profile=estimated_profile(model, capture, rows),
        batching=Batching(boundaries=length_boundaries(model.config)),
    )


def _experts_per_token(model: PreTrainedModel) -> int:
    """To how many experts of a stack a token goes; families name it differently."""
    configuration = model.config.get_text_config()
    names = ("num_experts_per_tok", "num_experts_per_token", "moe_topk", "moe_k")
    return max(1, *(getattr(configuration, name, None) or 1 for name in names))
