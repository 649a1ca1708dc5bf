"""Measure the engine on a GPU, at the size of the original study: `PYTHONPATH=. python benchmarks/gpu.py`.

Uses a random model of AMD-OLMo-1B-SFT's shape and samples as long as LIMA's. Measures slices of the study in every
precision, and extrapolates to the whole. Requires only torch, transformers, numpy, psutil and this repository.
"""

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from types import MappingProxyType
from typing import Any

import measuring
import numpy as np
import torch
import workload
from numpy.typing import NDArray
from planning import Parts, capture_operations, planned

from gradsim.gradients import Projector, compare, run
from gradsim.gradients.capture.capture import GradientCapture
from gradsim.gradients.capture.memory import default_budget
from gradsim.gradients.capture.precision import plain_arithmetic, precision_of, running_in
from gradsim.gradients.held.holder import Holder
from gradsim.gradients.planning.plan import Plan
from gradsim.gradients.reference import reference_dots, reference_gradient
from gradsim.gradients.results import Comparison

Floats = NDArray[np.float64]

# The study: samples of the dataset, candidates per query, settings (each with its own queries).
SAMPLES, CANDIDATES, SETTINGS = 988, 5, 2
SHARES = (0.01, 0.05)
WARM_UP = 4
SHAPES: Mapping[str, workload.Shape] = MappingProxyType(
    {
        "olmo-1b": workload.OLMO_1B,
        "olmo-150m": workload.Shape(hidden=768, layers=12, mlp=3072, heads=12, vocabulary=50304),
        "tiny": workload.TINY,
    }
)
# Rows and columns of the matrix product that measures the device's peak rate.
MATRIX = {"cuda": 8192, "cpu": 1024}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--shape", choices=tuple(SHAPES), default="olmo-1b", help="shape of the model (olmo-1b)")
    parser.add_argument("--precision", nargs="+", default=["float32", "tf32", "bfloat16"], help="default: all three")
    parser.add_argument(
        "--samples", type=int, default=128, help="number of queries, and of originals, in the top 5 slice (128)"
    )
    parser.add_argument("--all-queries", type=int, default=32, help="queries in the all-pairs slice (32)")
    parser.add_argument("--all-originals", type=int, default=64, help="originals in the all-pairs slice (64)")
    parser.add_argument("--checked-pairs", type=int, default=3, help="pairs to check with plain autograd (3)")
    parser.add_argument("--projections", nargs="*", default=["sjlt", "logra"], help="kinds of projection to measure")
    parser.add_argument("--memory-budget", type=float, help="GB for a comparison; default: the free memory")
    parser.add_argument(
        "--no-whole", action="store_true", help="do not plan the whole study, which takes about a minute each time"
    )
    parser.add_argument("--study", type=int, default=SAMPLES, help=f"samples in the whole study ({SAMPLES})")
    arguments = parser.parse_args()
    bench = Bench.of(arguments)
    rows: dict[str, list[measuring.Row]] = {name: [] for name in TABLES}
    for precision in arguments.precision:
        for name, found in bench.measured(precision):
            rows[name].append(measuring.emit({"what": name, **found}))
    for name, columns in TABLES.items():
        if rows[name]:
            print(f"\n{name}\n{measuring.table(rows[name], columns)}")
    return 0


# Tables printed at the end, one for each kind of row.
TABLES: Mapping[str, Mapping[str, str]] = MappingProxyType(
    {
        "slice": {
            "precision": "precision",
            "slice": "slice",
            "pairs": "pairs",
            "unique_samples": "unique",
            "passes": "passes",
            "layers_built": "built",
            "seconds": "seconds",
            "check": "check",
            "capture": "capture",
            "comparison": "comparison",
            "spilling": "spilling",
            "rest": "rest",
            "teraflop_per_second": "TFLOP/s",
            "capture_teraflop_per_second": "in capture",
            "matrix_teraflop_per_second": "matrix peak",
            "share": "share",
            "gb_predicted": "predicted GB",
            "gb_grown": "grown GB",
        },
        "projection": {
            "precision": "precision",
            "kind": "kind",
            "unique_samples": "samples",
            "seconds": "seconds",
            "ratio": "with / without",
            "ms_added": "ms added per sample",
            "minutes": "minutes, study",
            "minutes_added": "minutes added",
            "gb_predicted": "predicted GB",
            "gb_grown": "grown GB",
        },
        "error": {"precision": "precision", "pairs": "pairs", "largest": "largest", "median": "median", "at": "at"},
        "whole": {
            "precision": "precision",
            "whole": "whole",
            "pairs": "pairs",
            "unique_samples": "unique",
            "passes": "passes",
            "planning": "planning s",
            "minutes": "minutes",
            "capture": "capture s",
            "comparison": "comparison s",
            "spilling": "spilling s",
            "gb_predicted": "predicted GB",
        },
    }
)


@dataclass(frozen=True)
class Reference:
    """Results of plain autograd in float32 for some pairs of the top 5 slice.

    Attributes:
        positions: positions of the pairs.
        dots: (pairs, layers) inner products.
        norms: (pairs, layers) products of the two gradients' norms.
    """

    positions: list[int]
    dots: Floats
    norms: Floats


@dataclass(frozen=True)
class Bench:
    """Model, device and inputs of the measurements: slices by name, and the whole that each is part of."""

    model: workload.Model
    device: torch.device
    slices: Mapping[str, workload.Workload]
    wholes: Mapping[str, workload.Workload]
    reference: Reference
    projections: Sequence[str]
    study: int
    memory_budget: int | None

    @classmethod
    def of(cls, arguments: argparse.Namespace) -> "Bench":
        device = torch.device(arguments.device)
        model = workload.olmo(**SHAPES[arguments.shape], device=arguments.device)
        vocabulary = int(model.config.vocab_size)
        top = lima_slice(vocabulary, arguments.samples, arguments.samples, CANDIDATES)
        budget = arguments.memory_budget
        return cls(
            model=model,
            device=device,
            slices={
                TOP: top,
                ALL: lima_slice(vocabulary, arguments.all_queries, arguments.all_originals, None),
            },
            wholes={}
            if arguments.no_whole
            else {
                TOP: lima_slice(vocabulary, arguments.study, arguments.study, CANDIDATES, SETTINGS),
                ALL: lima_slice(vocabulary, arguments.study, arguments.study, None),
            },
            reference=reference_of(model, top, arguments.checked_pairs, device),
            projections=arguments.projections,
            study=arguments.study,
            memory_budget=None if budget is None else int(budget * 1e9),
        )

    def measured(self, precision: str) -> Iterator[tuple[str, measuring.Row]]:
        """Yield rows with the name of their table."""
        # The model is converted before memory is measured, so that the copy in another format does not count.
        with running_in(self.model, precision_of(precision).dtype):
            rate = matrix_rate(self.device, precision)
            budget = self.memory_budget or default_budget(self.device)
            for name, work in self.slices.items():
                result, parts, grown = self._timed(work, precision, budget)
                row = {"precision": precision, "slice": name, **measuring.machine(self.device)}
                yield "slice", {**row, **measures(result, parts, grown, rate, budget)}
                if name == TOP:
                    yield "error", {"precision": precision, **errors(result, self.reference)}
                    for kind in self.projections:
                        found = self._projected(work, precision, budget, kind, parts.total)
                        yield "projection", {"precision": precision, "kind": kind, **found}
                if self.wholes:
                    started = measuring.now(self.device)
                    whole = planned(self.model, self.wholes[name], precision_of(precision), budget)
                    planning = round(measuring.now(self.device) - started, 1)
                    row = {"precision": precision, "whole": _WHOLE[name], "planning": planning}
                    yield "whole", {**row, **extrapolated(whole, result.plan, parts)}

    def _projected(
        self, work: workload.Workload, precision: str, budget: int, kind: str, without: float
    ) -> measuring.Row:
        """Measure the slice with projectors of the study's shares, and extrapolate to the study's samples."""
        projectors = [Projector(kind, share, 42, f"{kind} {share}") for share in SHARES]
        result, parts, grown = self._timed(work, precision, budget, projectors)
        samples = result.plan.unique_samples
        whole = self.study * (SETTINGS + 1) / samples / 60
        return {
            "unique_samples": samples,
            "seconds": round(parts.total, 3),
            "ratio": parts.total / without,
            "ms_added": 1000 * (parts.total - without) / samples,
            "minutes": whole * parts.total,
            "minutes_added": whole * (parts.total - without),
            "gb_predicted": gb(result.plan.peak_bytes + result.plan.working_bytes),
            "gb_grown": gb(grown),
        }

    def _timed(
        self, work: workload.Workload, precision: str, budget: int, projectors: Sequence[Projector] = ()
    ) -> tuple[Comparison, Parts, int]:
        first = min(WARM_UP, len(work.queries), len(work.originals))
        settings: dict[str, Any] = {"precision": precision, "memory_budget": budget, "projectors": projectors}
        compare(self.model, work.queries[:first], work.originals[:first], "all", **settings)
        peak = measuring.PeakMemory(self.device)
        watch = measuring.Stopwatch(self.device)
        with watch.timing(PARTS):
            started = measuring.now(self.device)
            result = compare(self.model, work.queries, work.originals, work.pairs, **settings)
            seconds = measuring.now(self.device) - started
        return result, Parts(**watch.seconds, rest=seconds - sum(watch.seconds.values())), peak.grown


# Functions of each of the `Parts`.
PARTS: Mapping[str, Sequence[tuple[Any, str]]] = MappingProxyType(
    {
        "check": [(run, "probe")],
        "capture": [(GradientCapture, "run")],
        "comparison": [(Holder, "dots"), (Holder, "close")],
        "spilling": [(Holder, "spill"), (Holder, "restore")],
    }
)
TOP, ALL = "top 5", "all pairs"
_WHOLE = {TOP: "study: both settings, top 5", ALL: "all pairs of one setting"}


def lima_slice(
    vocabulary: int, queries: int, originals: int, candidates: int | None, settings: int = 1
) -> workload.Workload:
    """Return samples as long as LIMA's, with candidates for each query (None: all originals).

    The lengths of a slice are quantiles of all lengths, and candidates come from the slice, so it has as many pairs per
    sample as the whole. Settings share candidates, because BM25 reads only prompts; a sample's queries of all settings
    are adjacent, so that its candidates run once for all of them.
    """
    if candidates is None:
        pairs = np.argwhere(np.ones((queries, originals), dtype=bool))
    else:
        of_one = workload.top_pairs(originals, candidates, 0)
        of_all = np.concatenate([of_one * [settings, 1] + [setting, 0] for setting in range(settings)])
        pairs = of_all[np.argsort(of_all[:, 0], kind="stable")]
    lengths = [workload.lima_like(queries, seed) for seed in range(1, settings + 1)]
    tokens, prompts = (np.stack(kind, axis=1).reshape(-1) for kind in zip(*lengths, strict=True))
    return workload.Workload(
        queries=workload.samples("query", (tokens, prompts), vocabulary, 1),
        originals=workload.samples("original", workload.lima_like(originals, 0), vocabulary, 2),
        pairs=pairs,
    )


def reference_of(model: workload.Model, work: workload.Workload, count: int, device: torch.device) -> Reference:
    """Return the reference for `count` pairs spread over all pairs."""
    positions = sorted({int(position) for position in np.linspace(0, len(work.pairs) - 1, count)})
    dots, norms = [], []
    with plain_arithmetic(device):
        for query, original in work.pairs[positions].tolist():
            g = reference_gradient(model, work.queries[query])
            h = reference_gradient(model, work.originals[original])
            dots.append(reference_dots(g, h))
            norms.append(np.sqrt(np.array(reference_dots(g, g)) * np.array(reference_dots(h, h))))
    return Reference(positions, np.array(dots), np.array(norms))


def errors(result: Comparison, reference: Reference) -> measuring.Row:
    """Return statistics of |dot - reference| relative to the layer's norms, over all checked pairs and layers."""
    found = np.abs(result.dots[reference.positions] - reference.dots) / reference.norms
    pair, layer = np.unravel_index(np.argmax(found), found.shape)
    return {
        "pairs": len(reference.positions),
        "largest": float(found[pair, layer]),
        "median": float(np.median(found)),
        "at": result.layers[int(layer)],
    }


def matrix_rate(device: torch.device, precision: str) -> float:
    """Return operations per second of a large square matrix product, the best of ten."""
    chosen, size = precision_of(precision), MATRIX.get(device.type, MATRIX["cuda"])
    seconds = []
    with plain_arithmetic(device, chosen.products), torch.no_grad():
        a, b = (torch.randn(size, size, dtype=chosen.dtype, device=device) for _ in range(2))
        for _ in range(10):
            started = measuring.now(device)
            torch.mm(a, b)
            seconds.append(measuring.now(device) - started)
    return 2.0 * size**3 / min(seconds)


def measures(result: Comparison, parts: Parts, grown: int, rate: float, budget: int) -> measuring.Row:
    plan = result.plan
    return {
        "pairs": len(result.dots),
        "unique_samples": plan.unique_samples,
        "passes": result.passes,
        "batches": plan.cost.batches,
        "tokens": plan.cost.tokens,
        "block_of_queries": plan.block_size,
        "layers_built": int(plan.built.sum()),
        "checkpoint": plan.checkpoint,
        "memory_retries": result.memory_retries,
        "seconds": round(parts.total, 3),
        **rounded(asdict(parts)),
        "teraflop": plan.cost.operations / 1e12,
        "teraflop_per_second": plan.cost.operations / parts.total / 1e12,
        "capture_teraflop_per_second": capture_operations(plan) / parts.capture / 1e12,
        "comparison_teraflop_per_second": plan.alternative.product_operations / parts.comparison / 1e12,
        "matrix_teraflop_per_second": rate / 1e12,
        "share": plan.cost.operations / parts.total / rate,
        "gb_spilled": gb(plan.cost.spilled_bytes),
        "gb_budget": gb(budget),
        "gb_predicted_held": gb(plan.peak_bytes),
        "gb_predicted": gb(plan.peak_bytes + plan.working_bytes),
        "gb_grown": gb(grown),
    }


def extrapolated(whole: Plan, measured: Plan, parts: Parts) -> measuring.Row:
    expected = parts.at(measured, whole)
    return {
        "pairs": len(whole.alternative.task.pairs),
        "unique_samples": whole.unique_samples,
        "passes": whole.passes,
        "tokens": whole.cost.tokens,
        "block_of_queries": whole.block_size,
        "layers_built": int(whole.built.sum()),
        "checkpoint": whole.checkpoint,
        "teraflop": whole.cost.operations / 1e12,
        "minutes": round(expected.total / 60, 2),
        **rounded(asdict(expected)),
        "gb_spilled": gb(whole.cost.spilled_bytes),
        "gb_predicted": gb(whole.peak_bytes + whole.working_bytes),
    }


def rounded(values: Mapping[str, float]) -> dict[str, float]:
    return {name: round(value, 3) for name, value in values.items()}


def gb(count: int) -> float:
    return round(count / 1e9, 3)


if __name__ == "__main__":
    sys.exit(main())
