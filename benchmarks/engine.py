"""Compare the gradient engine with the floor, the original's algorithm and its peers: `python benchmarks/engine.py`.

Every comparison is paired: both sides run in turn on the same inputs after a warm-up, and the ratio is the median over
rounds. The process keeps freed memory, which helps both sides equally; --cold keeps the C library's default. Prints a
JSON line for each comparison, and a table at the end.
"""

import argparse
import json
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import floor
import numpy as np
import original
import torch
from measuring import in_turn, keep_freed_memory
from peers.cases import structures
from peers.disagreement import Reference, by_structure, disagreement
from peers.registry import PEERS, PeerError, run, write_input
from rich.console import Console
from rich.table import Table
from transformers import PreTrainedModel
from transformers.utils.logging import set_verbosity_error
from workload import Workload, between, lima_top_five, olmo, samples, top_pairs

from gradsim.gradients import Comparison, compare, compare_tiles

VOCABULARY = 4096


@dataclass(frozen=True)
class Measured:
    """One row of the result.

    Attributes:
        what: description of the comparison.
        target: target of the ratio.
        ratio: median of `ratios`.
        ratios: ratio of the two times in each round.
        ours: seconds of gradsim in each round.
        other: seconds of the other side in each round.
        note: further observations.
    """

    what: str
    target: str
    ratio: float
    ratios: list[float]
    ours: list[float]
    other: list[float]
    note: str = ""


def paired(
    what: str,
    target: str,
    ours: Callable[[], object],
    other: Callable[[], object],
    rounds: int,
    *,
    speedup: bool,
    note: str = "",
) -> Measured:
    """Time two functions in turn; the ratio is other / ours for a speedup, otherwise ours / other."""
    times = in_turn(ours, other, rounds)
    ratios = [b / a if speedup else a / b for a, b in zip(*times, strict=True)]
    return _shown(Measured(what, target, statistics.median(ratios), ratios, *times, note))


def _shown(comparison: Measured) -> Measured:
    line = {key: _rounded(value) for key, value in asdict(comparison).items()}
    print(json.dumps(line), flush=True)
    return comparison


def _rounded(value: object) -> object:
    if isinstance(value, list):
        return [_rounded(item) for item in value]
    return round(value, 3) if isinstance(value, float) else value


def short(queries: int) -> Workload:
    """Return queries and as many originals of 64 to 192 tokens, with five candidates per query."""
    return Workload(
        samples("query", between(64, 192, queries, seed=1), VOCABULARY, seed=1),
        samples("original", between(64, 192, queries, seed=2), VOCABULARY, seed=2),
        top_pairs(queries, min(5, queries), seed=3),
    )


def ours(model: PreTrainedModel, workload: Workload) -> Comparison:
    return compare(model, workload.queries, workload.originals, workload.pairs)


def against_floor(what: str, target: str, model: PreTrainedModel, workload: Workload, rounds: int) -> Measured:
    """Compare dots and self dots of all layers with plain training on the same unique samples."""
    together = [*workload.queries, *workload.originals]
    tokens = floor.fastest_batch_tokens(model, together[: len(together) // 4])
    tiles = compare_tiles(model, workload.queries, workload.originals, workload.pairs)
    tiles.together()
    return paired(
        f"{what}, vs. the floor (batches of {tokens} tokens)",
        target,
        partial(ours, model, workload),
        partial(floor.run, model, together, tokens),
        rounds,
        speedup=False,
        note=f"checks take {tiles.check_seconds / (tiles.check_seconds + tiles.seconds):.1%} of our time",
    )


def against_original(model: PreTrainedModel, workload: Workload, rounds: int) -> list[Measured]:
    """Compare with the original's sweep for one table, and with all four sweeps."""

    def four_sweeps() -> None:
        original.dot_products(model, workload)
        original.similarities(model, workload)
        for _ in ("1 %", "5 %"):
            original.projections(model, workload)

    warm_up = Workload(workload.queries[:1], workload.originals[:1], np.array([[0, 0]]))
    ours(model, warm_up)
    original.similarities(model, warm_up)
    run_ours = partial(ours, model, workload)
    size = f"{len(workload.queries)} queries"
    note = f"the original's passes process {original.repetition(workload):.2f} times the unique tokens"
    return [
        paired(
            f"dots of top five, {size}, vs. the original's sweep",
            ">= 3x faster",
            run_ours,
            partial(original.dot_products, model, workload),
            rounds,
            speedup=True,
            note=note,
        ),
        paired(
            f"all tables, {size}, vs. the original's four sweeps",
            ">= 11x faster",
            run_ours,
            four_sweeps,
            rounds,
            speedup=True,
            note=f"{note} in each sweep",
        ),
    ]


def against_peers(model: PreTrainedModel, workload: Workload, rounds: int) -> list[Measured]:
    """Compare all pairs in every layer with each installed peer, and measure the peer's errors."""
    queries, originals = workload.queries, workload.originals
    everything = partial(compare, model, queries, originals, "all")
    compare(model, queries[:2], originals[:2], "all")
    found = []
    with tempfile.TemporaryDirectory() as folder:
        write_input(Path(folder), model, queries, originals)
        for peer in PEERS:
            seconds: tuple[list[float], list[float]] = ([], [])
            try:
                for _ in range(rounds):
                    start = time.perf_counter()
                    result = everything()
                    seconds[0].append(time.perf_counter() - start)
                    answer = run(peer, Path(folder), repeat=1, threads=torch.get_num_threads())
                    seconds[1].append(answer.seconds[0])
            except PeerError as error:
                print(f"{peer.name}: {error}", file=sys.stderr)
                continue
            shape = (len(queries), len(originals), len(result.layers))
            reference = Reference(
                result.layers, result.dots.reshape(shape), result.query_self_dots, result.original_self_dots
            )
            difference = disagreement(answer, reference)
            ratios = [b / a for a, b in zip(*seconds, strict=True)]
            cells = {name: difference.cell(layers) for name, layers in by_structure(structures(model)).items()}
            note = "; ".join(f"{name}: {cell}" for name, cell in cells.items())
            what = f"all pairs, {len(queries)} x {len(originals)}, vs. {peer.name} {peer.version}"
            found.append(_shown(Measured(what, ">= 1x", statistics.median(ratios), ratios, *seconds, note=note)))
    return found


def show(comparisons: Sequence[Measured]) -> None:
    """Print the results as a table."""
    machine = f"{torch.get_num_threads()} threads, {platform.machine()}, torch {torch.__version__}"
    table = Table(title=f"gradient engine, float32, {machine}", title_justify="left")
    for column in ("what", "target", "ratio", "ours (s)", "other (s)", "note"):
        table.add_column(column, justify="right" if column in ("ratio", "ours (s)", "other (s)") else "left")
    for line in comparisons:
        table.add_row(
            line.what,
            line.target,
            f"{line.ratio:.3g}",
            f"{statistics.median(line.ours):.1f}",
            f"{statistics.median(line.other):.1f}",
            line.note,
        )
    Console(width=150).print(table)


SECTIONS = ("floor", "ghost", "original", "peers")


def main() -> int:
    """Run the requested sections."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sections", nargs="*", metavar="SECTION", help=f"{', '.join(SECTIONS)}; default: all")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--queries", type=int, default=64, help="number of queries, and of originals (default 64)")
    parser.add_argument(
        "--original-queries", type=int, default=16, help="queries for the original's slow algorithm (default 16)"
    )
    parser.add_argument("--cold", action="store_true", help="keep the C library's default memory handling")
    arguments = parser.parse_args()
    sections = arguments.sections or SECTIONS
    if unknown := set(sections) - set(SECTIONS):
        parser.error(f"unknown section {', '.join(sorted(unknown))}; choose from {', '.join(SECTIONS)}")
    if not arguments.cold:
        keep_freed_memory()
    set_verbosity_error()
    comparisons: list[Measured] = []
    model = olmo(vocabulary=VOCABULARY)
    if "floor" in sections:
        what = f"top five of {2 * arguments.queries} samples, LIMA lengths"
        comparisons.append(
            against_floor(what, "<= 1.05", model, lima_top_five(arguments.queries, VOCABULARY), arguments.rounds)
        )
    if "ghost" in sections:
        wide = olmo(hidden=1024, layers=2, vocabulary=VOCABULARY)
        what = f"top five of {2 * arguments.queries} samples, width 1024, 64 to 192 tokens"
        comparisons.append(against_floor(what, "<= 1.0", wide, short(arguments.queries), arguments.rounds))
    if "original" in sections:
        comparisons += against_original(model, lima_top_five(arguments.original_queries, VOCABULARY), arguments.rounds)
    if "peers" in sections:
        comparisons += against_peers(model, lima_top_five(arguments.queries, VOCABULARY), arguments.rounds)
    show(comparisons)
    return 0


if __name__ == "__main__":
    sys.exit(main())
