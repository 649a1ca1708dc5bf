"""Measure quality and cost of selecting layers, of projecting to as many dimensions, and of the full gradient.

`python benchmarks/selection.py` runs the bundled rewrites and their originals through a model trained on the originals.
A selection takes whole layers, without the embedding, from the lowest block up (shallow) or from the highest block down
(deep), as long as they fit into a share of the parameters. A projection has as many dimensions as the deep selection
has parameters. Every round runs everything once, in another order, and a ratio is that of times in the same round.
Prints JSON lines and a table.
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import measuring
import numpy as np
from gradients_of_rewrites import Rewrites, rewrites_of
from measuring import Row, emit, keep_freed_memory
from projection import Floats, scores

from gradsim.analysis.layer_dots import cosine
from gradsim.gradients import Projector, compare
from gradsim.gradients.vectors import projected_gradients

SHARES = (0.01, 0.05, 0.20)
KINDS = ("sjlt", "logra")
SEED = 42

COLUMNS = {
    "name": "gradient",
    "numbers": "numbers",
    "ratio": "time / full",
    "seconds": "seconds",
    "held_mb": "MB held",
    "pass_mb": "MB of a pass",
    "cosine_error": "error of cosine",
    "rank_agreement": "Kendall's tau",
    "accuracy": "accuracy",
}


@dataclass(frozen=True)
class Outcome:
    """Cosines of all pairs, and bytes: of the gradients or vectors held, and of the largest pass as planned."""

    cosines: Floats
    held_bytes: int
    pass_bytes: int | None = None


def main() -> int:
    """Measure all candidates in rounds."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--queries", type=int, help="number of the 60 bundled rewrites to use")
    parser.add_argument("--model", type=Path, help="folder of the trained model; kept, and reused if it exists")
    parser.add_argument("--rounds", type=int, default=3, help="rounds after a warm-up (3)")
    arguments = parser.parse_args()
    keep_freed_memory()
    with tempfile.TemporaryDirectory(prefix="gradsim-selection-") as temporary:
        data = rewrites_of(arguments.model or Path(temporary) / "model", arguments.queries)
    sizes = {name: parameter.numel() for name, parameter in data.model.named_parameters()}
    candidates: dict[str, Callable[[], Outcome]] = {"full": lambda: of_layers(data, None)}
    numbers = {"full": sum(sizes.values())}
    for share in SHARES:
        for depth in ("shallow", "deep"):
            layers = selected(sizes, share, deep=depth == "deep")
            name = f"{depth} layers, {100 * share:g} %"
            candidates[name] = lambda layers=layers: of_layers(data, layers)  # type: ignore[misc]
            numbers[name] = sum(sizes[layer] for layer in layers)
        for kind in KINDS:
            projector = Projector(kind, numbers[name], SEED, kind)
            candidates[f"{kind}, {100 * share:g} %"] = lambda projector=projector: of_projection(data, projector)  # type: ignore[misc]
            numbers[f"{kind}, {100 * share:g} %"] = numbers[name]
    rows = measure(candidates, numbers, data, arguments.rounds)
    print("\n" + measuring.table(rows, COLUMNS))
    return 0


def selected(sizes: dict[str, int], share: float, *, deep: bool) -> list[str]:
    """Return layers of the blocks, from one end on, that fit into a share of all parameters."""
    blocks = [name for name in sizes if ".layers." in name]
    left = share * sum(sizes.values())
    chosen = []
    for name in reversed(blocks) if deep else blocks:
        if sizes[name] <= left:
            chosen.append(name)
            left -= sizes[name]
    return chosen


def of_layers(data: Rewrites, layers: Sequence[str] | None) -> Outcome:
    """Compare the gradients of some layers, or of all."""
    result = compare(data.model, data.queries, data.originals, data.pairs, layers=layers)
    query, original = data.pairs.T
    of_query, of_original = result.query_self_dots.sum(axis=1), result.original_self_dots.sum(axis=1)
    cosines = cosine(result.dots.sum(axis=1), of_query[query], of_original[original])
    return Outcome(cosines, result.peak_bytes, result.plan.working_bytes)


def of_projection(data: Rewrites, projector: Projector) -> Outcome:
    """Compare projected gradients, without the exact ones."""
    used = np.unique(data.pairs[:, 1])
    samples = [*data.queries, *(data.originals[place] for place in used)]
    vectors = np.stack([vector for _, vector in projected_gradients(data.model, samples, projector)])
    row = {place: len(data.queries) + number for number, place in enumerate(used.tolist())}
    pairs = [(query, row[original]) for query, original in data.pairs.tolist()]
    dots = np.array([np.dot(vectors[query].astype(float), vectors[original]) for query, original in pairs])
    own = np.array([np.dot(vector.astype(float), vector) for vector in vectors])
    query, original = np.array(pairs).T
    return Outcome(cosine(dots, own[query], own[original]), vectors.nbytes)


def measure(
    candidates: dict[str, Callable[[], Outcome]], numbers: dict[str, int], data: Rewrites, rounds: int
) -> list[Row]:
    """Run every candidate once a round after a warm-up, and return a row for each."""
    outcomes = {name: run() for name, run in candidates.items()}
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    for number in range(rounds):
        names = list(candidates)
        for name in names[number:] + names[:number]:
            started = time.perf_counter()
            candidates[name]()
            seconds[name].append(time.perf_counter() - started)
    truth = outcomes["full"].cosines
    rows = []
    for name, outcome in outcomes.items():
        ratios = [own / full for own, full in zip(seconds[name], seconds["full"], strict=True)]
        rows.append(
            emit(
                {
                    "name": name,
                    "numbers": numbers[name],
                    "ratio": statistics.median(ratios),
                    "ratios": [round(ratio, 3) for ratio in ratios],
                    "seconds": statistics.median(seconds[name]),
                    "held_mb": outcome.held_bytes / 1e6,
                    "pass_mb": None if outcome.pass_bytes is None else outcome.pass_bytes / 1e6,
                    **scores(outcome.cosines, truth, data),
                }
            )
        )
    return rows


if __name__ == "__main__":
    sys.exit(main())
