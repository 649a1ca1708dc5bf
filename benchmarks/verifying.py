"""Measure what verifying stored files costs: `python benchmarks/verifying.py STUDY` of a finished study.

Combines all partitions, answers all questions from the combined tables (without figures), and reads and writes a large
table, once with digests of files computed and compared and once without, in turn. Each time, no file counts as
verified. It works on a copy, and takes CPU time, which waiting for the disk would only dilute.
"""

import argparse
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from unittest import mock

import numpy as np
import polars as pl
from measuring import Row, emit, in_turn, table

from gradsim.analysis import QUESTIONS
from gradsim.environment import read_environment
from gradsim.study import load_study
from gradsim.tables import Provenance, Store, seal
from gradsim.tables.combine import combine
from gradsim.tables.files import read_blocks
from gradsim.tables.lineage import COMBINED_TABLES
from gradsim.tables.writing import table_writer, write_table

ROWS = 3_000_000

COLUMNS = {
    "what": "what",
    "megabytes": "MB read",
    "seconds": "CPU seconds",
    "unverified": "without digests",
    "ratio": "ratio",
    "ratios": "ratios",
}


def main() -> int:
    """Measure combining and the analyses in rounds."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("study", help="finished study of the data root (GRADSIM_DATA)")
    parser.add_argument("--rounds", type=int, default=5, help="rounds after a warm-up (5)")
    options = parser.parse_args()
    environment = read_environment()
    study = load_study(options.study, environment)
    with tempfile.TemporaryDirectory(prefix="gradsim-verifying-") as temporary:
        shutil.copytree(environment.data_root / study.name, Path(temporary) / study.name)
        large = large_table(Path(temporary))
        store = Store(Path(temporary), study)
        rows = [
            measured("combining", lambda: combine_all(store), partition_bytes(store), options.rounds),
            measured("analyses", lambda: answer_all(store), combined_bytes(store), options.rounds),
            measured(f"copying {ROWS:,} dots", lambda: copy(large), large.stat().st_size, options.rounds),
        ]
    print("\n" + table(rows, COLUMNS))
    return 0


def combine_all(store: Store) -> None:
    """Combine the partitions of every table of every setting."""
    for setting in store.study.settings:
        for name in COMBINED_TABLES:
            with store.writer(store.lineage.key(name, setting, "results")) as writer:
                for rows in combine(name, store.blocks(store.lineage.key(name, setting))):
                    writer.add(rows)


def answer_all(store: Store) -> None:
    """Answer every question about every setting."""
    read = cache(store.read)
    for setting in store.study.settings:
        for name, question in QUESTIONS.items():
            inputs = store.lineage.analysis_inputs(name, setting)
            question.answer({argument: read(key) for argument, key in inputs.items()}, store.study.seed)


def large_table(folder: Path) -> Path:
    """Write a table of dots as large as those of 5,000 queries, five candidates and 120 layers."""
    rng, place = np.random.default_rng(0), np.arange(ROWS)
    ids, layers = (
        pl.Enum([f"sample_{each}" for each in range(1000)]),
        pl.Enum([f"layers.{each}" for each in range(120)]),
    )
    columns = {
        "query_id": pl.Series(place // 600 % 1000, dtype=pl.UInt32).cast(ids),
        "original_id": pl.Series(rng.integers(0, 1000, ROWS), dtype=pl.UInt32).cast(ids),
        "rank": pl.Series(place // 120 % 5, dtype=pl.Int32),
        "layer": pl.Series(place % 120, dtype=pl.UInt32).cast(layers),
        "dot": rng.standard_normal(ROWS).astype(np.float32),
    }
    write_table(pl.DataFrame(columns), path := folder / "large.parquet", Provenance())
    return path


def copy(path: Path) -> None:
    """Read a table and write it again, block by block, as combining does."""
    with table_writer(path.with_name("copy.parquet"), Provenance(), lambda rows: rows) as writer:
        for rows in read_blocks(path):
            writer.add(rows)


def partition_bytes(store: Store) -> int:
    """Return the bytes of all partitions that are combined."""
    keys = [store.lineage.key(name, setting) for setting in store.study.settings for name in COMBINED_TABLES]
    return sum(store.path(key, partition).stat().st_size for key in keys for partition in store.partitions(key))


def combined_bytes(store: Store) -> int:
    """Return the bytes of all combined tables."""
    keys = [store.lineage.key(name, setting, "results") for setting in store.study.settings for name in COMBINED_TABLES]
    return sum(store.path(key).stat().st_size for key in keys)


def measured(what: str, work: Callable[[], None], size: int, rounds: int) -> Row:
    """Return the times of some work with and without digests."""
    verified, unverified = in_turn(
        lambda: digested(work, True), lambda: digested(work, False), rounds, time.process_time
    )
    digested(work, True)  # files written without digests do not count as whole
    ratios = [own / without for own, without in zip(verified, unverified, strict=True)]
    return emit(
        {
            "what": what,
            "megabytes": size / 1e6,
            "seconds": statistics.median(verified),
            "unverified": statistics.median(unverified),
            "ratio": statistics.median(ratios),
            "ratios": [round(ratio, 3) for ratio in ratios],
        }
    )


def digested(work: Callable[[], None], on: bool) -> None:
    """Do some work as if no file were verified yet; `on` is whether digests are computed, for writing and reading."""
    seal._remembered.cache_clear()
    replacement = seal._digest if on else lambda content, place: content[place]
    with mock.patch.object(seal, "_digest", replacement):
        work()


if __name__ == "__main__":
    sys.exit(main())
