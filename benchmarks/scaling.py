"""Measure how time and memory grow with samples, length, width, depth and pairs: `python benchmarks/scaling.py`.

Uses random models and samples and varies one quantity at a time; all samples of a measurement have the same length.
Each measurement runs in its own process, so that peak memory is its own.
"""

import argparse
import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import measuring
import torch
import workload

from gradsim.gradients import compare

TOP = 5


@dataclass(frozen=True)
class Point:
    """One measurement: `count` queries and `count` originals of `length` tokens, on a model of `hidden` x `depth`.

    Attributes:
        count: number of queries and of originals.
        length: tokens per sample.
        hidden: width of the model.
        depth: number of blocks.
        pairs: "top" for 5 originals per query, "all" for every pair.
    """

    count: int = 128
    length: int = 256
    hidden: int = 256
    depth: int = 8
    pairs: str = "top"


# Sweep -> the attribute that varies, and its values.
SWEEPS: Mapping[str, tuple[str, tuple[int, ...]]] = MappingProxyType(
    {
        "samples": ("count", (64, 128, 256, 512, 1024)),
        "length": ("length", (128, 256, 512, 1024, 2048)),
        "width": ("hidden", (128, 192, 256, 384, 512)),
        "depth": ("depth", (2, 4, 8, 16)),
        "all_pairs": ("count", (32, 64, 128, 256)),
    }
)
QUICK: Mapping[str, tuple[int, ...]] = MappingProxyType(
    {
        "samples": (16, 32, 64),
        "length": (32, 64, 128),
        "width": (64, 128),
        "depth": (2, 4),
        "all_pairs": (16, 32),
    }
)
BASES: Mapping[str, Point] = MappingProxyType(
    {
        "samples": Point(),
        # Fewer samples, because the longest ones are expensive.
        "length": Point(count=32),
        "width": Point(),
        "depth": Point(),
        "all_pairs": Point(pairs="all"),
    }
)
QUICK_BASE = Point(count=16, length=64, hidden=128, depth=2)


def points(sweep: str, *, quick: bool) -> Iterator[tuple[int, Point]]:
    """Yield the values of the varied quantity, each with its point."""
    attribute, values = SWEEPS[sweep]
    base = replace(QUICK_BASE, pairs=BASES[sweep].pairs) if quick else BASES[sweep]
    for value in QUICK[sweep] if quick else values:
        yield value, Point(**(asdict(base) | {attribute: value}))


COLUMNS: Mapping[str, str] = MappingProxyType(
    {
        "sweep": "sweep",
        "value": "value",
        "pairs": "pairs",
        "unique_samples": "unique",
        "passes": "passes",
        "seconds": "seconds",
        "gigaflop": "GFLOP",
        "gigaflop_per_second": "GFLOP/s",
        "mb_held": "held MB",
        "mb_predicted_held": "predicted",
        "mb_predicted_pass": "pass MB",
        "mb_predicted": "predicted MB",
        "mb_grown": "grown MB",
        "grown_to_predicted": "ratio",
        "failed": "failed",
    }
)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--sweep", nargs="+", choices=tuple(SWEEPS), default=list(SWEEPS), help="sweeps to run; default: all"
    )
    parser.add_argument("--quick", action="store_true", help="small values only, about a minute in total")
    parser.add_argument("--repeat", type=int, default=1, help="runs per measurement; the shortest counts (1)")
    parser.add_argument("--memory-budget", type=float, default=8.0, help="GB for each comparison (8)")
    parser.add_argument("--plot", type=Path, help="PNG to write: time against each quantity (needs matplotlib)")
    parser.add_argument("--point", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    budget = int(arguments.memory_budget * 1e9)
    if arguments.point:
        print(json.dumps(measured(Point(**json.loads(arguments.point)), budget, arguments.repeat)))
        return 0
    rows = []
    common = ["--memory-budget", str(arguments.memory_budget), "--repeat", str(arguments.repeat)]
    for sweep in arguments.sweep:
        for value, point in points(sweep, quick=arguments.quick):
            row = measuring.alone(__file__, ["--point", json.dumps(asdict(point)), *common])
            rows.append(measuring.emit({"sweep": sweep, "value": value, **asdict(point), **row}))
    print()
    print(measuring.table(rows, COLUMNS))
    if arguments.plot:
        plot(rows, arguments.plot)
    return 1 if any("failed" in row for row in rows) else 0


def measured(point: Point, memory_budget: int, repeat: int) -> measuring.Row:
    device = torch.device("cpu")
    model = workload.olmo(hidden=point.hidden, layers=point.depth)
    lengths = workload.between(point.length, point.length, point.count, 0)
    queries, originals = (
        workload.samples(name, lengths, model.config.vocab_size, seed) for name, seed in (("query", 1), ("original", 2))
    )
    pairs: Any = "all" if point.pairs == "all" else workload.top_pairs(point.count, min(TOP, point.count), 3)
    # Warm up threads and libraries.
    few = workload.samples("few", workload.between(8, 8, 2, 0), 64, 0)
    compare(workload.olmo(**workload.TINY), few, few, "all")
    seconds = []
    peak = measuring.PeakMemory(device)
    for _ in range(repeat):
        started = measuring.now(device)
        result = compare(model, queries, originals, pairs, memory_budget=memory_budget)
        seconds.append(measuring.now(device) - started)
    plan = result.plan
    predicted = plan.peak_bytes + plan.working_bytes
    return {
        **measuring.machine(device),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "pairs": len(result.dots),
        "unique_samples": plan.unique_samples,
        "passes": result.passes,
        "batches": plan.cost.batches,
        "layers_built": int(plan.built.sum()),
        "checkpoint": plan.checkpoint,
        "memory_retries": result.memory_retries,
        "seconds": round(min(seconds), 3),
        "gigaflop": round(plan.cost.operations / 1e9, 1),
        "gigaflop_per_second": round(plan.cost.operations / min(seconds) / 1e9, 1),
        "mb_held": round(result.peak_bytes / 1e6, 1),
        "mb_predicted_held": round(plan.peak_bytes / 1e6, 1),
        "mb_predicted_pass": round(plan.working_bytes / 1e6, 1),
        "mb_predicted": round(predicted / 1e6, 1),
        "mb_grown": round(peak.grown / 1e6, 1),
        "grown_to_predicted": round(peak.grown / predicted, 2),
    }


def plot(rows: list[measuring.Row], path: Path) -> None:
    import matplotlib as mpl  # noqa: PLC0415 - only needed for plots

    mpl.use("Agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415

    sweeps = list(dict.fromkeys(row["sweep"] for row in rows))
    figure, axes = plt.subplots(1, len(sweeps), figsize=(3.2 * len(sweeps), 3), squeeze=False, layout="constrained")
    for sweep, panel in zip(sweeps, axes[0], strict=True):
        good = [row for row in rows if row["sweep"] == sweep and "failed" not in row]
        panel.loglog([row["value"] for row in good], [row["seconds"] for row in good], "o-")
        panel.set(title=sweep.replace("_", " "), xlabel=SWEEPS[sweep][0], ylabel="seconds")
        panel.set_xticks([row["value"] for row in good], [str(row["value"]) for row in good], minor=False)
        panel.minorticks_off()
        panel.grid(alpha=0.3)
    figure.savefig(path, dpi=150)


if __name__ == "__main__":
    sys.exit(main())
