"""Measure the cost of analyses: import, all tables of a setting with intervals, selections, ten times as many queries.

Uses published dots (988 queries, 5 candidates, 113 layers) or random dots of that shape. Does not need torch.

    python benchmarks/analysis.py [--published DIR] [--rounds 3]

DIR is the folder that contains `dot_products/` in the original's layout, as for `gradsim import-published`.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from gradsim.analysis import QUESTIONS, Criterion, LayerDots, gradient_similarity, parameters_per_layer
from gradsim.analysis.questions import DOTS, SIZES
from gradsim.analysis.selection.greedy import greedy_order
from gradsim.published import find_published, read_published, store_published

N_QUERIES, N_CANDIDATES, BLOCKS = 988, 5, 16
COMPONENTS = {"q_proj": 4, "k_proj": 4, "v_proj": 4, "o_proj": 4, "gate_proj": 16, "up_proj": 16, "down_proj": 16}
DIMENSIONS = (11_767_808, 58_838_016)
SEED = 42
Tables = dict[str, pl.DataFrame]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--published", type=Path, help="use these results, and measure their import")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--part", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.part:  # the child process of a part
        print(json.dumps(PARTS[arguments.part](arguments.published)))
        return
    for part in PARTS:
        if part == "import" and arguments.published is None:
            continue
        runs = [_in_its_own_process(part, arguments.published) for _ in range(arguments.rounds)]
        for name in runs[0]:
            values = [run[name] for run in runs]
            print(f"{part:10} {name:44} {statistics.median(values):10.2f}   ({', '.join(f'{v:.2f}' for v in values)})")


def _in_its_own_process(part: str, published: Path | None) -> dict[str, float]:
    command = [sys.executable, __file__, "--part", part, *(["--published", str(published)] if published else [])]
    return dict(json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout))


def measure_import(folder: Path | None) -> dict[str, float]:
    """Measure reading one setting's JSON and writing its tables."""
    assert folder is not None
    with tempfile.TemporaryDirectory() as data:
        files = find_published(folder, settings=["paraphrased"])
        start = time.perf_counter()
        imported = store_published(read_published(files), Path(data), "published")
        seconds = time.perf_counter() - start
        given = files.settings["paraphrased"]
        read = sum(source.path.stat().st_size for table in DOTS for source in getattr(given, table))
        store = imported.store
        written = sum(store.path(store.lineage.key(table, "paraphrased", "results")).stat().st_size for table in DOTS)
    return {
        "seconds": seconds,
        "JSON of dots (MB)": read / 1e6,
        "tables of dots (MB)": written / 1e6,
        "JSON over tables": read / written,
        "peak memory (GB)": _peak(),
    }


def measure_analyses(folder: Path | None) -> dict[str, float]:
    """Measure all questions of a setting, and both greedy selections separately."""
    return _answers(_published(folder) if folder else _random(N_QUERIES))


def measure_ten_times(_: Path | None) -> dict[str, float]:
    """Measure the analyses of ten times as many random queries, and relate them to the usual number."""
    usual, large = (_answers(_random(n)) for n in (N_QUERIES, 10 * N_QUERIES))
    return {
        "all analyses (s)": large["all analyses (s)"],
        "ratio to a tenth of the queries": large["all analyses (s)"] / usual["all analyses (s)"],
        "both selections (s)": large["both selections (s)"],
        "selections: ratio to a tenth": large["both selections (s)"] / usual["both selections (s)"],
        "peak memory (GB)": _peak(),
    }


def _answers(tables: Tables) -> dict[str, float]:
    seconds = {}
    answers = dict(tables)
    for name, question in QUESTIONS.items():
        read = {each: answers[each] for each in question.inputs if each in answers}
        seconds[name], answers[name] = _timed(lambda: question.answer(read, SEED))  # noqa: B023 - called at once
    dots = LayerDots.from_tables(*(tables[name] for name in DOTS))
    selections = sum(_timed(lambda: greedy_order(dots, criterion))[0] for criterion in Criterion)  # noqa: B023
    slowest = max(seconds, key=lambda name: seconds[name])
    return {
        "all analyses (s)": sum(seconds.values()),
        f"{slowest} alone (s)": seconds[slowest],
        "both selections (s)": selections,
        "rows of dot_products": tables["dot_products"].height,
        "peak memory (GB)": _peak(),
    }


def _published(folder: Path) -> Tables:
    published = read_published(find_published(folder, settings=["paraphrased"]))
    sizes = pl.DataFrame({"layer": published.layers, "parameters": [published.parameters[x] for x in published.layers]})
    return {
        **published.settings["paraphrased"],
        "projections": _projections(sizes),
        SIZES: parameters_per_layer(sizes),
    }


def _random(n_queries: int) -> Tables:
    """Return random tables in the shape of the published study; sources are slightly more similar than others."""
    random = np.random.default_rng(SEED)
    layers = ["model.embed_tokens.weight"]
    layers += [
        f"model.layers.{block}.{'self_attn' if size == 4 else 'mlp'}.{name}.weight"
        for block in range(BLOCKS)
        for name, size in COMPONENTS.items()
    ]
    parameters = [103_022_592, *[size << 20 for _ in range(BLOCKS) for size in COMPONENTS.values()]]
    ids, names = pl.Enum([f"s{number}" for number in range(n_queries)]), pl.Enum(layers)
    sample = np.arange(n_queries, dtype=np.uint32)
    pairs = pl.DataFrame(
        {
            "query_id": np.repeat(sample, N_CANDIDATES),
            "original_id": ((sample[:, None] + np.arange(N_CANDIDATES)) % n_queries).ravel().astype(np.uint32),
            "rank": np.tile(np.arange(N_CANDIDATES, dtype=np.int32), n_queries),
        }
    ).with_columns(pl.col("query_id", "original_id").cast(ids))
    layer = pl.DataFrame({"layer": pl.Series(layers, dtype=names)})
    dots = pairs.join(layer, how="cross", maintain_order="left_right")
    noise = pl.Series(random.normal(0.0, 0.3, dots.height))
    self_dots = pl.DataFrame({"id": pl.Series(sample).cast(ids)}).join(layer, how="cross", maintain_order="left_right")
    self_dots = self_dots.with_columns(self_dot=pl.Series(random.uniform(0.5, 2.0, self_dots.height)))
    tables: Tables = {
        "candidates": pairs.with_columns(score=pl.lit(1.0), forced=pl.lit(value=False)),
        "dot_products": dots.with_columns(dot=noise + 0.3 * (pl.col("rank") == 0)),
        "query_self": self_dots.rename({"id": "query_id"}),
        "original_self": self_dots.rename({"id": "original_id"}),
    }
    similarity = gradient_similarity(*(tables[name] for name in DOTS))
    sizes = pl.DataFrame({"layer": layers, "parameters": parameters})
    return {
        **tables,
        "gradient_similarity": similarity,
        "projected_similarity": pl.concat(
            similarity.select(
                pl.lit("sjlt").alias("projection"), pl.lit(dimension, pl.Int64).alias("dimension"), pl.all()
            )
            for dimension in DIMENSIONS
        ),
        "projections": _projections(sizes, "sjlt"),
        SIZES: parameters_per_layer(sizes),
    }


def _projections(sizes: pl.DataFrame, name: str = "rademacher_as_published") -> pl.DataFrame:
    total = sizes["parameters"].sum()
    return pl.concat(
        sizes.select(
            pl.lit(name).alias("projection"),
            pl.lit(dimension, pl.Int64).alias("dimension"),
            pl.lit("rademacher").alias("kind"),
            pl.lit("unbiased" if name == "sjlt" else "as_published").alias("scaling"),
            pl.lit("one").alias("projector"),
            "layer",
            "parameters",
            (pl.col("parameters") * (dimension / total)).ceil().cast(pl.Int64).alias("layer_dimension"),
        )
        for dimension in DIMENSIONS
    )


def _timed(function: Callable[[], Any]) -> tuple[float, Any]:
    start = time.perf_counter()
    result = function()
    return time.perf_counter() - start, result


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


PARTS: dict[str, Callable[[Path | None], dict[str, float]]] = {
    "import": measure_import,
    "analyses": measure_analyses,
    "ten times": measure_ten_times,
}


if __name__ == "__main__":
    main()
