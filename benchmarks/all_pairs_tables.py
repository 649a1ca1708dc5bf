"""Measure the tables of all pairs without the model: `python benchmarks/all_pairs_tables.py`.

Random dots pass through the steps of a partition job: tiles, partitions, checks, combined table. Prints seconds and the
peak memory of the process after each step.
"""

import argparse
import json
import resource
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import polars as pl

from gradsim.candidates import bm25_candidates
from gradsim.gradients import Tile
from gradsim.partition_job import PartitionJob
from gradsim.partition_job.gathering import Gathered, Method
from gradsim.partition_job.inputs import JobInputs, read_inputs
from gradsim.partition_job.partition_tables import PartitionTables
from gradsim.study import ModelConfiguration, Study
from gradsim.tables import Store
from gradsim.tables.combine import combine
from gradsim.tables.validation import validate

SETTING, BLOCK, ORIGINALS_OF_A_TILE = "dropped", 64, 32
WORDS = np.array([f"word{number}" for number in range(20_000)])


def main() -> None:
    """Run all steps in a temporary folder."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=988)
    parser.add_argument("--layers", type=int, default=113)
    parser.add_argument("--partition-size", type=int, default=100)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="gradsim-all-pairs-") as folder:
        run(Path(folder), options.samples, options.layers, options.partition_size)


def run(folder: Path, samples: int, layers: int, partition_size: int) -> None:
    """Run all steps for a study with this many samples and layers."""
    study = make_study(folder, samples, partition_size)
    store = Store(folder / "store", study)
    names, key = [f"layer.{number}" for number in range(layers)], store.lineage.key
    dots, results = key("dot_products", SETTING), key("dot_products", SETTING, "results")
    partitions = [str(partition) for partition in store.partitions(dots)]
    with measured("make the inputs, including candidates of all pairs"):
        write_inputs(store, names)
    with measured("read what a job compares"):
        inputs = read_inputs(store, [(SETTING, partition) for partition in partitions])
    with measured(f"write dot_products, {len(inputs.pairs) * layers:,} rows"):
        gathered = Gathered(tiles(inputs, layers), inputs, [], [Method()], layers, with_dots=True, with_projected=False)
        for partition in inputs.partitions:
            rows = PartitionTables(inputs, gathered, partition, names, [], [])
            with store.writer(dots, partition.key) as writer:
                for frames in rows.streamed():
                    writer.add(frames["dot_products"])
    with measured("check dot_products"):
        faults = [validate(store, dots, partition) for partition in partitions]
        assert not any(fault for each in faults for fault in each.values()), faults
    with measured("combine dot_products"), store.writer(results) as writer:
        for frame in combine("dot_products", store.blocks(dots)):
            writer.add(frame)
    with measured("read one query's rows of the combined table"):
        wanted = pl.scan_parquet(store.path(results)).filter(pl.col("query_id") == str(samples // 2))
        assert wanted.collect().height == samples * layers


@contextmanager
def measured(what: str) -> Iterator[None]:
    """Print the seconds and the peak memory of a step."""
    started = time.perf_counter()
    yield
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    print(f"{what:60} {time.perf_counter() - started:8.2f} s   peak {peak:6.0f} MiB", flush=True)


def make_study(folder: Path, samples: int, partition_size: int) -> Study:
    """Return a study of random texts of 10 to 99 words."""
    path, chance = folder / "originals.jsonl", np.random.default_rng(0)
    with path.open("w", encoding="utf-8") as file:
        for number in range(samples):
            text = " ".join(chance.choice(WORDS, size=chance.integers(10, 100)))
            turns = [{"role": role, "content": text} for role in ("user", "assistant")]
            file.write(json.dumps({"id": str(number), "messages": turns}) + "\n")
    definition = {
        "name": "all_pairs",
        "dataset": {"path": path},
        "samples": samples,
        "model": {"name": "org/model"},
        "settings": {SETTING: {"method": "word_dropout"}},
        "top_k": "all",
        "partition_size": partition_size,
    }
    return Study.model_validate(definition)


def write_inputs(store: Store, layers: list[str]) -> None:
    """Write the inputs of a job: originals as queries, with a few tokens each."""
    key, n_layers = store.lineage.key, len(layers)
    samples = pl.read_ndjson(store.root.parent / "originals.jsonl")
    tokens = pl.Series([[1, 2]], dtype=pl.List(pl.Int32))
    tokenized = samples.select("id", *(pl.lit(tokens).first().alias(name) for name in _TOKEN_COLUMNS))
    store.write(key("samples"), samples)
    store.write(key("model"), pl.DataFrame({"layer": layers, "shape": [[1]] * n_layers, "parameters": [1] * n_layers}))
    store.write(key("tokenized"), tokenized)
    candidates = bm25_candidates(samples, samples, top_k="all")
    for partition in store.partitions(key("queries", SETTING)):
        mine = pl.col("id").is_in(store.ids_of(str(partition)))
        store.write(key("queries", SETTING), samples.filter(mine), partition)
        store.write(key("tokenized", SETTING), tokenized.filter(mine), partition)
        rows = candidates.filter(pl.col("query_id").is_in(store.ids_of(str(partition))))
        store.write(key("candidates", SETTING), rows, partition)


_TOKEN_COLUMNS = ("input_ids_prompt", "input_ids", "labels")


def job_of(store: Store, partitions: list[str]) -> PartitionJob:
    """Return a job for the dots of these partitions."""
    return PartitionJob(
        study=store.study,
        keys=(store.lineage.key("dot_products", SETTING),),
        partitions=tuple(partitions),
        fingerprints={},
        root=store.root,
        model=ModelConfiguration("org/model"),
    )


def tiles(inputs: JobInputs, layers: int) -> Iterator[Tile]:
    """Yield random dots in the order of the engine: blocks of queries, and within each a few originals at a time."""
    chance, nothing = np.random.default_rng(0), np.empty(0, dtype=np.int64)
    queries, originals = len(inputs.queries), np.arange(len(inputs.originals))
    starts = np.searchsorted(inputs.pairs[:, 0], np.arange(queries + 1))
    for start in range(0, queries, BLOCK):
        stop = min(start + BLOCK, queries)
        pairs = np.arange(starts[start], starts[stop])
        group = inputs.pairs[pairs, 1] // ORIGINALS_OF_A_TILE
        for number in np.unique(group):
            tile = pairs[group == number]
            last = number == group.max()
            yield Tile(
                pairs=tile,
                dots=chance.random((len(tile), layers)),
                queries=np.arange(start, stop) if last else nothing,
                query_self_dots=np.ones((stop - start if last else 0, layers)),
                query_losses=np.ones(stop - start if last else 0),
                originals=originals if last else nothing,
                original_self_dots=np.ones((len(originals) if last else 0, layers)),
                original_losses=np.ones(len(originals) if last else 0),
                queries_done=stop if last else start,
            )


if __name__ == "__main__":
    main()
