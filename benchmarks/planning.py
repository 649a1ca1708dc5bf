"""Predict a comparison that is too large to measure: its plan, and its time from a measured comparison."""

from dataclasses import dataclass

import numpy as np
import torch
import workload

from gradsim.gradients.capture.capture import GradientCapture
from gradsim.gradients.capture.check import probe
from gradsim.gradients.capture.encoding import Nodes, encode, model_limits, pair_positions
from gradsim.gradients.capture.precision import Precision, plain_arithmetic
from gradsim.gradients.planning.alternatives import PairsToRun, alternatives_of, operations_per_byte
from gradsim.gradients.planning.plan import Plan, make_plan
from gradsim.gradients.planning.sizes import Lengths


def planned(model: workload.Model, work: workload.Workload, precision: Precision, memory_budget: int) -> Plan:
    """Return the plan of `compare`, running only the check of the rules; the model must already have its format."""
    limits = model_limits(model)
    nodes = Nodes.of(
        [encode(query, limits) for query in work.queries], [encode(original, limits) for original in work.originals]
    )
    pairs = pair_positions(work.pairs, len(work.queries), len(work.originals))
    device = next(model.parameters()).device
    reduced = precision.products == "tf32" or precision.dtype == torch.bfloat16
    with plain_arithmetic(device):
        probed = probe(model, nodes.samples)
    with GradientCapture(model, probed.by_autograd) as capture:
        ways = alternatives_of(
            PairsToRun(
                Lengths.of(nodes.samples), nodes.of_pairs(pairs), np.arange(len(pairs)), pairs[:, 0], len(work.queries)
            ),
            model,
            capture,
            probed,
            [],
            memory_budget=memory_budget,
            reduced=reduced,
        )
        return make_plan(list(ways), memory_budget, operations_per_byte(device, reduced=reduced))


# Copy rate between host and device.
_BYTES_PER_SECOND = 20e9


@dataclass(frozen=True)
class Parts:
    """Seconds of the parts of a comparison.

    Attributes:
        check: check of the rules against plain autograd.
        capture: forward and backward passes, and building of gradients.
        comparison: inner products, including self dots.
        spilling: copies of gradients to the host and back.
        rest: planning, memory management, copying results to the host.
    """

    check: float
    capture: float
    comparison: float
    spilling: float
    rest: float

    @property
    def total(self) -> float:
        return self.check + self.capture + self.comparison + self.spilling + self.rest

    def at(self, measured: Plan, wanted: Plan) -> "Parts":
        """Return the predicted parts of another plan, at the rates of the measured one.

        Captures scale with the operations of their tokens (including padding and repetitions), comparisons with those
        of their pairs, copies with their bytes (at 20 GB/s if none were measured), and the rest with passes.
        """
        spilled = measured.cost.spilled_bytes
        return Parts(
            check=self.check,
            capture=self.capture * capture_operations(wanted) / capture_operations(measured),
            comparison=self.comparison
            * wanted.alternative.product_operations
            / measured.alternative.product_operations,
            spilling=wanted.cost.spilled_bytes * (self.spilling / spilled if spilled else 1 / _BYTES_PER_SECOND),
            rest=self.rest * wanted.passes / measured.passes,
        )


def capture_operations(plan: Plan) -> float:
    """Return the operations of passes and of building gradients."""
    return plan.cost.operations - plan.alternative.product_operations
