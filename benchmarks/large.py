"""Run a model of AMD-OLMo-1B-SFT's shape on a CPU within 10 GB: `python benchmarks/large.py`.

Uses 1,176,764,416 random float32 parameters in 113 tensors, and 2 queries with 5 candidates each, all of 256 tokens.
One run in its own process prints time, peak memory, and the plan's predictions.
"""

import argparse
import json
import sys

import measuring
import numpy as np
import torch
import workload

from gradsim.errors import GradientError
from gradsim.gradients import compare_tiles

QUERIES, CANDIDATES, TOKENS = 2, 5, 256


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--limit", type=float, default=10.0, help="GB for the whole process (10)")
    parser.add_argument(
        "--memory-budget",
        type=float,
        help="GB for `compare`; default: what the limit leaves after loading the model",
    )
    parser.add_argument("--tokens", type=int, default=TOKENS, help=f"tokens per sample ({TOKENS})")
    parser.add_argument("--tiny", action="store_true", help="use a tiny model, to try out the command")
    parser.add_argument("--here", action="store_true", help="run in this process (used internally)")
    arguments = parser.parse_args()
    if arguments.here:
        print(json.dumps(run(arguments)))
        return 0
    row = measuring.emit(measuring.alone(__file__, [*sys.argv[1:], "--here"]))
    if "failed" in row:
        return 1
    print()
    print(measuring.table([{"what": key, "is": value} for key, value in row.items()], {"what": "what", "is": "is"}))
    return 0 if row["within_limit"] and row["within_budget"] else 1


def run(arguments: argparse.Namespace) -> measuring.Row:
    device = torch.device("cpu")
    baseline = measuring.resident_bytes()
    model = workload.olmo(**(workload.TINY if arguments.tiny else workload.OLMO_1B))
    parameters = [parameter.numel() for parameter in model.parameters()]
    originals = QUERIES * CANDIDATES
    lengths = workload.between(arguments.tokens, arguments.tokens, originals, 0)
    vocabulary = model.config.vocab_size
    peak = measuring.PeakMemory(device)
    limit = int(arguments.limit * 1e9)
    budget = int(arguments.memory_budget * 1e9) if arguments.memory_budget is not None else limit - peak.before
    started = measuring.now(device)
    tiles = compare_tiles(
        model,
        workload.samples("query", (lengths[0][:QUERIES], lengths[1][:QUERIES]), vocabulary, 1),
        workload.samples("original", lengths, vocabulary, 2),
        np.array([(original // CANDIDATES, original) for original in range(originals)]),
        memory_budget=budget,
        progress=lambda done, total: print(
            f"{done} of {total} samples, peak {gb(peak.bytes)} GB so far", file=sys.stderr, flush=True
        ),
    )
    try:
        result = tiles.together()
    except GradientError as error:
        raise SystemExit(str(error)) from None
    seconds = measuring.now(device) - started
    assert np.isfinite(result.dots).all()
    plan = result.plan
    return {
        **measuring.machine(device),
        "parameters": sum(parameters),
        "tensors": len(parameters),
        "samples": originals + QUERIES,
        "tokens_of_each": arguments.tokens,
        "seconds": round(seconds, 1),
        "gigaflop_per_second": round(plan.cost.operations / seconds / 1e9, 1),
        "passes": result.passes,
        "batches": plan.cost.batches,
        "block_of_queries": plan.block_size,
        "layers_built": int(plan.built.sum()),
        "checkpoint": plan.checkpoint,
        "memory_retries": result.memory_retries,
        "gb_of_interpreter": gb(baseline),
        "gb_with_model": gb(peak.before),
        "gb_of_budget": gb(budget),
        "gb_predicted": gb(plan.peak_bytes + plan.working_bytes),
        "gb_predicted_held": gb(plan.peak_bytes),
        "gb_predicted_pass": gb(plan.working_bytes),
        "gb_held": gb(result.peak_bytes),
        "gb_grown": gb(peak.grown),
        "gb_peak": gb(peak.bytes),
        "within_budget": peak.grown <= budget,
        "within_limit": peak.bytes <= limit,
    }


def gb(count: int) -> float:
    return round(count / 1e9, 3)


if __name__ == "__main__":
    sys.exit(main())
