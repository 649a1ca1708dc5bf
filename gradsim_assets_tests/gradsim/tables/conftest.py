"""A study of four samples in two partitions, and tables for it that are written by hand."""

import json
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from gradsim.partition_job.study_projections import projections_table
from gradsim.queries import query_frame
from gradsim.study import Study
from gradsim.tables import SCHEMAS, Provenance, Store, TableKey
from gradsim.tables.combine import combine

IDS = ["a", "b", "c", "d"]
LAYERS = ["embedding", "head"]


def write_samples(path: Path, text: str = "answer") -> None:
    turns = [{"role": "user", "content": "question"}, {"role": "assistant", "content": text}]
    path.write_text("".join(json.dumps({"id": each, "messages": turns}) + "\n" for each in IDS), encoding="utf-8")


def define(folder: Path, **changes: Any) -> Study:
    """A study of the folder's data files."""
    definition = {
        "name": "mine",
        "dataset": {"path": folder / "originals.jsonl"},
        "samples": 4,
        "model": {"reference": {"layers": 1}},
        "settings": {
            "paraphrased": {"method": "file", "path": folder / "queries.jsonl"},
            "model_generated": {"method": "generate"},
        },
        "top_k": 2,
        "projections": [{"share": 0.01}],
        "partition_size": 2,
    }
    return Study.model_validate({**definition, **changes})


def stored_places(store: Store) -> list[tuple[TableKey, str | None]]:
    """The key and partition of every file of a study."""
    return [(node.key, each) for node in store.lineage for each in store.partitions(node.key)]


def write_data(folder: Path) -> None:
    write_samples(folder / "originals.jsonl")
    write_samples(folder / "queries.jsonl", "rewritten")


@pytest.fixture
def make_study(tmp_path: Path) -> Callable[..., Study]:
    """Studies that differ from a common one in the keys given."""
    write_data(tmp_path)
    return partial(define, tmp_path)


@pytest.fixture
def study(make_study: Callable[..., Study]) -> Study:
    return make_study()


@pytest.fixture
def store(tmp_path: Path, study: Study) -> Store:
    """The study's tables, none of them written."""
    return Store(tmp_path / "store", study)


@pytest.fixture(scope="session")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_all(tmp_path_factory.mktemp("written")).root


def write_all(folder: Path) -> Store:
    """A store with all tables of the study; those from gradients with plausible numbers."""
    write_data(folder)
    store = Store(folder / "store", define(folder))
    for node in store.lineage:
        for partition in store.partitions(node.key):
            if node.key.name == "report":
                store.write_report("<p>found</p>")
            else:
                store.write(node.key, rows_of(store, node.key, partition), partition, Provenance(device="cpu"))
    return store


@pytest.fixture
def filled(written: Path, store: Store) -> Store:
    """The study's tables, all of them written."""
    shutil.copytree(written, store.root)
    return store


@pytest.fixture
def tiny_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tables of four rows and more are larger than a block."""
    for module in ("digest", "writing", "files"):
        monkeypatch.setattr(f"gradsim.tables.{module}.BLOCK_ROWS", 3)


def rows_of(store: Store, key: TableKey, partition: str | None) -> pl.DataFrame:
    """Rows as a run would have made them; none for analyses."""
    if key.room == "results":
        return pl.concat(combine(key.name, store.blocks(store.lineage.key(key.name, key.setting))))
    if key.room == "analysis":
        return SCHEMAS[key.name].empty()
    ids = store.ids_of(partition) if partition else IDS
    turns = [[{"role": "user", "content": "question"}, {"role": "assistant", "content": "answer"}]]
    tokens = {"input_ids_prompt": [[1, 2]], "input_ids": [[1, 2, 3]], "labels": [[-100, -100, 3]]}
    model = pl.DataFrame({"layer": LAYERS, "shape": [[3, 2], [3]], "parameters": [6, 3]})
    layers = model.select("layer")
    pairs = pl.DataFrame(
        [(query, original, rank) for query in ids for rank, original in enumerate((query, other(query)))],
        schema={"query_id": pl.String, "original_id": pl.String, "rank": pl.Int32},
        orient="row",
    )
    originals = pairs.select("original_id").unique(maintain_order=True)
    lists = pl.List(pl.Int32)
    own = [pl.lit(1.0).alias("self_dot"), pl.lit(2.0).alias("loss"), pl.lit(False).alias("noise")]
    frames = {
        "samples": lambda: pl.DataFrame({"id": IDS, "messages": turns * 4}),
        "model": lambda: model,
        "queries": lambda: query_frame(pl.DataFrame({"id": ids}), turns * len(ids)),
        "tokenized": lambda: pl.DataFrame({"id": ids}).with_columns(
            pl.Series(name, value * len(ids), dtype=lists) for name, value in tokens.items()
        ),
        "candidates": lambda: pairs.with_columns(score=pl.lit(1.5), forced=pl.lit(False)),
        "dot_products": lambda: pairs.join(layers, how="cross").with_columns(dot=pl.lit(0.5)),
        "query_self": lambda: pl.DataFrame({"query_id": ids}).join(layers, how="cross").with_columns(own),
        "original_self": lambda: originals.join(layers, how="cross").with_columns(own),
        "gradient_similarity": lambda: pairs.with_columns(similarity=pl.lit(0.5)),
        "projected_similarity": lambda: pairs.with_columns(
            similarity=pl.lit(0.5), projection=pl.lit("sjlt"), dimension=pl.lit(8, pl.Int64)
        ),
    }

    def projected(table: str) -> pl.DataFrame:
        return frames[table]().with_columns(projection=pl.lit("sjlt_1pct"))

    frames |= {
        f"projected_{name}": partial(projected, table)
        for name, table in (("dots", "dot_products"), ("query_self", "query_self"), ("original_self", "original_self"))
    }
    frames["projections"] = lambda: projections_table(store.study, model)
    return frames[key.name]()


def other(query: str) -> str:
    """The second candidate of each query."""
    return {"a": "b", "b": "c", "c": "d", "d": "a"}[query]
