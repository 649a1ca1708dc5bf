"""Measure quality and cost of projections: `python benchmarks/projection.py`.

Quality is measured on the bundled rewrites and their originals, with a model trained on the originals: every kind at
every budget, and selections of layers with as many parameters, chosen on one half of the queries for the other. Cost is
measured through `compare`, with and without projectors, on random samples as long as LIMA's. Prints JSON lines and
tables; --plot draws quality against cost.
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from math import prod
from pathlib import Path

import measuring
import numpy as np
import torch
import workload
from gradients_of_rewrites import Gradients, Rewrites, gradients, tensors
from measuring import Row, emit, keep_freed_memory
from numpy.typing import NDArray
from scipy.stats import kendalltau

from gradsim.analysis.layer_dots import cosine
from gradsim.gradients import Projector, compare
from gradsim.gradients.projection import KINDS, ModelProjection

Floats = NDArray[np.float64]

CPU = torch.device("cpu")
SHARES = (0.0001, 0.001, 0.01, 0.05)
SEED = 42

# Dense kinds draw k x n signs. Above this number, `cost` skips them, and `quality` uses one seed and skips traker.
MOST_SIGNS = 1e10

# Repetitions of one sample's projection.
MOST_REPEATS = 9

QUALITY = {
    "kind": "kind",
    "share_pct": "% of parameters",
    "dimensions": "dimensions",
    "cosine_error": "error of cosine",
    "rank_agreement": "Kendall's tau",
    "same_choice": "same choice",
    "accuracy": "accuracy",
    "ms_alone": "ms per sample",
    "mb_vector": "MB per vector",
    "mb_projection": "MB per projection",
    "note": "note",
}
COST = {
    "projectors": "projectors",
    "samples": "samples",
    "ratio": "time with / without",
    "ms_added": "ms added per sample",
    "note": "note",
}


@dataclass(frozen=True, eq=False)
class Dots:
    """Per-layer dots of pairs and self dots: (pairs, layers), (queries, layers), (originals, layers)."""

    dots: Floats
    of_queries: Floats
    of_originals: Floats

    def cosines(self, pairs: NDArray[np.int64], layers: Sequence[int] | None = None) -> Floats:
        """Return the cosines of pairs over the given layers (None: all), (pairs,)."""
        chosen = slice(None) if layers is None else list(layers)
        query, original = pairs.T
        sums = [part[:, chosen].sum(axis=1) for part in (self.dots, self.of_queries, self.of_originals)]
        return cosine(sums[0], sums[1][query], sums[2][original])


def main() -> int:
    """Run the requested sections."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sections", nargs="*", default=["quality", "cost"], help="quality, cost; default: both")
    parser.add_argument("--kinds", nargs="+", choices=tuple(KINDS), default=list(KINDS), help="default: all")
    parser.add_argument("--shares", nargs="+", type=float, default=list(SHARES), help="budgets as shares of parameters")
    parser.add_argument("--queries", type=int, help="number of the 60 bundled rewrites to use for quality")
    parser.add_argument("--model", type=Path, help="folder of the trained model; kept, and reused if it exists")
    parser.add_argument("--seeds", type=int, default=3, help="number of seeds that quality is averaged over (3)")
    parser.add_argument(
        "--cost-queries", type=int, default=16, help="number of queries, and of originals, for cost (16)"
    )
    parser.add_argument("--rounds", type=int, default=3, help="rounds of paired runs for cost (3)")
    parser.add_argument("--plot", type=Path, help="PNG to write: quality against cost (needs matplotlib)")
    arguments = parser.parse_args()
    keep_freed_memory()
    quality_rows: list[Row] = []
    if "quality" in arguments.sections:
        with tempfile.TemporaryDirectory(prefix="gradsim-projection-") as temporary:
            data = gradients(arguments.model or Path(temporary) / "model", arguments.queries)
        quality_rows = list(quality(data, arguments.kinds, arguments.shares, arguments.seeds))
        print("\n" + measuring.table(quality_rows, QUALITY) + "\n")
    if "cost" in arguments.sections:
        cost_rows = list(cost(arguments.kinds, arguments.shares, arguments.cost_queries, arguments.rounds))
        print("\n" + measuring.table(cost_rows, COST))
    if arguments.plot and quality_rows:
        plot(quality_rows, arguments.plot)
    return 0


def quality(data: Gradients, kinds: Sequence[str], shares: Sequence[float], seeds: int) -> Iterator[Row]:
    """Measure every kind and the selection of layers, at every budget."""
    exact = dots_of(data, lambda layer, rows: [row.reshape(-1) for row in rows])
    truth = exact.cosines(data.pairs)
    yield emit({"kind": "full gradient", "dimensions": data.layout.width, **scores(truth, truth, data)})
    for share in shares:
        total = round(share * data.layout.width)
        for kind in kinds:
            yield emit({"kind": kind, "share_pct": 100 * share, **of_kind(kind, total, data, truth, seeds)})
        yield emit({"kind": "selection", "share_pct": 100 * share, **selection(exact, data, truth, total)})


def of_kind(kind: str, total: int, data: Gradients, truth: Floats, seeds: int) -> Row:
    """Measure a kind at a budget: means over seeds (one seed if there are too many signs), time and bytes."""
    signs = dense_signs([Projector(kind, total, SEED, kind)], data.shapes)
    if kind == "traker" and signs > MOST_SIGNS:
        return {"note": f"{signs:.1e} random signs: skipped"}
    found = []
    for seed in range(1 if signs > MOST_SIGNS else seeds):
        projection = ModelProjection(Projector(kind, total, SEED + seed, kind), data.shapes, CPU)
        dots = dots_of(data, partial(projected, projection))
        found.append(scores(dots.cosines(data.pairs), truth, data))
    dimensions = sum(projection.dimensions.values())
    return {
        "dimensions": dimensions,
        **{name: statistics.fmean(row[name] for row in found) for name in found[0]},
        "seeds": len(found),
        "ms_alone": 1000 * seconds_a_sample(projection, data),
        "mb_vector": 4e-6 * dimensions,
        "mb_projection": 1e-6 * projection.nbytes,
    }


def dense_signs(projectors: Sequence[Projector], shapes: Mapping[str, tuple[int, ...]]) -> float:
    """Return the number of random signs that dense kinds draw for one batch."""
    return sum(
        float(k) * prod(shapes[layer])
        for projector in projectors
        if projector.kind in ("rademacher", "traker")
        for layer, k in projector.layer_dimensions(shapes).items()
    )


def dots_of(data: Gradients, project: Callable[[str, list[torch.Tensor]], Sequence[torch.Tensor]]) -> Dots:
    """Dots of all pairs, layer by layer, of what `project` makes of a layer's gradients."""
    query, original = data.pairs.T
    count = len(data.queries)
    columns: list[tuple[Floats, Floats, Floats]] = []
    for (layer, shape), place in zip(data.shapes.items(), data.layout.slices, strict=True):
        rows = [*tensors(data.of_queries, place, shape), *tensors(data.of_originals, place, shape)]
        gram = gram_of(torch.stack([vector.reshape(-1) for vector in project(layer, rows)]).numpy())
        columns.append((gram[query, count + original], gram.diagonal()[:count], gram.diagonal()[count:]))
    return Dots(*(np.stack(parts, axis=1) for parts in zip(*columns, strict=True)))


def gram_of(vectors: NDArray[np.float32], step: int = 1 << 14) -> Floats:
    """Return all inner products of float32 vectors, summed in float64 chunk by chunk."""
    gram = np.zeros((len(vectors), len(vectors)))
    for start in range(0, vectors.shape[1], step):
        part = vectors[:, start : start + step]
        gram += part @ part.T
    return gram


def projected(projection: ModelProjection, layer: str, rows: list[torch.Tensor]) -> Sequence[torch.Tensor]:
    return rows if projection.keeps_whole(layer) else list(projection.project(layer, rows))


def seconds_a_sample(projection: ModelProjection, data: Gradients) -> float:
    """Return the seconds to project all layers of one built gradient, the median of up to nine runs."""
    seconds: list[float] = []
    while len(seconds) < MOST_REPEATS and sum(seconds) < 1.0:
        started = time.perf_counter()
        for (layer, shape), place in zip(data.shapes.items(), data.layout.slices, strict=True):
            projected(projection, layer, tensors(data.of_queries[len(seconds) :][:1], place, shape))
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds)


def scores(guess: Floats, truth: Floats, data: Rewrites) -> Row:
    """Return how close cosines, rankings and choices are to those of the full gradient."""
    lists = [np.flatnonzero(data.pairs[:, 0] == query) for query in range(len(data.queries))]
    return {
        "cosine_error": float(np.sqrt(np.mean((guess - truth) ** 2))),
        "rank_agreement": statistics.fmean(float(kendalltau(guess[each], truth[each]).statistic) for each in lists),
        "same_choice": statistics.fmean(float(guess[each].argmax() == truth[each].argmax()) for each in lists),
        "accuracy": statistics.fmean(float(data.source[each][guess[each].argmax()]) for each in lists),
    }


def selection(exact: Dots, data: Gradients, truth: Floats, total: int) -> Row:
    """Measure layers with at most `total` parameters, chosen on one half of the queries for the other half."""
    sizes = [prod(shape) for shape in data.shapes.values()]
    if min(sizes) > total:
        return {"note": "no layer is that small"}
    first_half = data.pairs[:, 0] < len(data.queries) // 2
    guess = np.empty_like(truth)
    chosen = []
    for training in (first_half, ~first_half):
        layers = chosen_layers(exact, data, truth, training, sizes, total)
        guess[~training] = exact.cosines(data.pairs, layers)[~training]
        chosen.append(layers)
    dimensions = max(sum(sizes[layer] for layer in layers) for layers in chosen)
    started = time.perf_counter()
    for layer in chosen[0]:
        data.of_queries[0, data.layout.slices[layer]].copy()
    return {
        "dimensions": dimensions,
        **scores(guess, truth, data),
        "ms_alone": 1000 * (time.perf_counter() - started),
        "mb_vector": 4e-6 * dimensions,
        "mb_projection": 0.0,
        "layers": [[list(data.shapes)[layer] for layer in layers] for layers in chosen],
    }


def chosen_layers(
    exact: Dots, data: Gradients, truth: Floats, training: NDArray[np.bool_], sizes: Sequence[int], total: int
) -> list[int]:
    """Return layers selected greedily to bring the training pairs' cosines closest to those of the full gradient."""
    chosen: list[int] = []

    def error(layer: int) -> float:
        return float(np.mean((exact.cosines(data.pairs, [*chosen, layer]) - truth)[training] ** 2))

    while True:
        left = total - sum(sizes[layer] for layer in chosen)
        fitting = [layer for layer, size in enumerate(sizes) if layer not in chosen and size <= left]
        if not fitting:
            return chosen
        chosen.append(min(fitting, key=error))


def cost(kinds: Sequence[str], shares: Sequence[float], queries: int, rounds: int) -> Iterator[Row]:
    """Compare the engine's pass with and without projectors."""
    model = workload.olmo()
    work = workload.lima_top_five(queries, model.config.vocab_size)
    shapes = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    parameters = sum(map(prod, shapes.values()))

    def projector(kind: str, share: float) -> Projector:
        return Projector(kind, round(share * parameters), SEED, f"{kind} {100 * share:g} %")

    together = [projector(kind, share) for kind in ("sjlt", "logra") for share in (0.01, 0.05)]
    groups = [together, *([projector(kind, share)] for share in shares for kind in kinds)]
    for projectors in groups:
        name = ", ".join(each.name for each in projectors)
        if (signs := dense_signs(projectors, shapes)) > MOST_SIGNS:
            yield emit({"projectors": name, "note": f"{signs:.1e} random signs per batch: skipped"})
            continue
        yield emit({"projectors": name, **overhead(model, work, projectors, rounds)})


def overhead(model: workload.Model, work: workload.Workload, projectors: Sequence[Projector], rounds: int) -> Row:
    """Return the ratio of times with and without projectors: the median over paired rounds after a warm-up."""

    def without() -> object:
        return compare(model, work.queries, work.originals, work.pairs)

    def with_projectors() -> object:
        return compare(model, work.queries, work.originals, work.pairs, projectors=projectors)

    measuring.in_turn(with_projectors, without, 1)  # the warm-up
    projecting, plain = measuring.in_turn(with_projectors, without, rounds)
    ratios = [a / b for a, b in zip(projecting, plain, strict=True)]
    count = len(work.queries) + len(work.originals)
    added = statistics.median(a - b for a, b in zip(projecting, plain, strict=True))
    return {
        "samples": count,
        "ratio": statistics.median(ratios),
        "ratios": [round(ratio, 3) for ratio in ratios],
        "ms_added": 1000 * added / count,
        "seconds_without": round(statistics.median(plain), 2),
    }


def plot(rows: Sequence[Row], path: Path) -> None:
    """Plot the error of cosines against time and against bytes, one line per kind."""
    import matplotlib as mpl  # noqa: PLC0415 - only needed for plots

    mpl.use("Agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415

    figure, panels = plt.subplots(1, 2, figsize=(9, 4), sharey=True, layout="constrained")
    for panel, key, label in (
        (panels[0], "ms_alone", "ms to project one gradient"),
        (panels[1], "mb_vector", "MB of a projected gradient"),
    ):
        for kind, marker in zip([*KINDS, "selection"], "osD^vPX", strict=True):
            points = [row for row in rows if row["kind"] == kind and "cosine_error" in row]
            if points:
                values = [[row[name] for row in points] for name in (key, "cosine_error")]
                panel.loglog(*values, marker=marker, linestyle="-" if kind != "selection" else "--", label=kind)
        panel.set_xlabel(label)
        panel.grid(alpha=0.3)
    panels[0].set_ylabel("error of the cosine (root mean square)")
    panels[1].legend()
    figure.savefig(path, dpi=150)


if __name__ == "__main__":
    sys.exit(main())
