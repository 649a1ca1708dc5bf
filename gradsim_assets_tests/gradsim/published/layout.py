"""The published results in the original layout, rebuilt from the golden tables."""

import json
import shutil
from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import polars as pl

MODEL = "amd/AMD-OLMo-1B-SFT"
SETTINGS = ("paraphrased", "model_generated")
QUERIES = 988

# Queries per part in the original study; the last part has fewer.
SIMILARITY_PART, PROJECTION_PART = 99, 20

Form = tuple[tuple[str, ...], str]
"""Key columns and value column."""

DOTS: Form = (("query_id", "original_id", "layer"), "dot")
QUERY_SELF: Form = (("query_id", "layer"), "self_dot")
ORIGINAL_SELF: Form = (("original_id", "layer"), "self_dot")
SIMILARITY: Form = (("query_id", "original_id"), "similarity")
PROJECTIONS: Form = (("projection_dim", "query_id", "original_id"), "similarity")


def write_golden_layout(golden: Path, folder: Path, settings: Sequence[str] = SETTINGS, *, parts: bool = False) -> Path:
    """Write `data/` and `results/`, with whole tables or the original parts, and return the folder."""
    published = golden / "published"
    for setting in settings:
        tables = {
            name: pl.read_parquet(published / f"{name}_{setting}.parquet") for name in ("dot_products", "query_self")
        }
        by_job = pl.read_parquet(published / f"original_self_by_partition_{setting}.parquet")
        jobs = sorted(by_job["partition_start"].unique())
        dots = folder / "data/dot_products" / setting / MODEL / "sample_size/full"
        similarities = folder / "data/gradient_similarity"
        cosines = [("random_projection", PROJECTIONS, PROJECTION_PART, similarities / "random_projection")]
        if setting == "paraphrased":
            cosines.append(("gradient_similarity", SIMILARITY, SIMILARITY_PART, similarities))

        for table, form in (("dot_products", DOTS), ("query_self", QUERY_SELF)):
            _write(dots, _stem(table), tables[table], form, jobs if parts else None)
        if parts:
            for start, end in pairwise([*jobs, QUERIES]):
                job = by_job.filter(pl.col("partition_start") == start)
                write_json(dots / f"original_dot_products_part_{start}_{end}.json", nested(job, *ORIGINAL_SELF))
        else:
            whole = pl.read_parquet(published / f"original_self_{setting}.parquet")
            write_json(dots / "original_dot_products.json", nested(whole, *ORIGINAL_SELF))
        for table, form, size, place in cosines:
            frame = pl.read_parquet(published / f"{table}_{setting}.parquet")
            _write(place / setting / MODEL, "sample_size_full", frame, form, range(0, QUERIES, size) if parts else None)

    sizes = folder / "results/parameters_per_layer" / MODEL / "values.json"
    sizes.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(published / "analysis/parameters_per_layer.json", sizes)
    return folder


def _stem(table: str) -> str:
    return {"dot_products": "dot_products", "query_self": "paraphrased_dot_products"}[table]


def _write(
    folder: Path, stem: str, frame: pl.DataFrame, form: tuple[Sequence[str], str], starts: Iterable[int] | None
) -> None:
    if starts is None:
        write_json(folder / f"{stem}.json", nested(frame, *form))
        return
    for start, end in pairwise([*starts, QUERIES]):
        part = frame.filter(pl.col("query_id").to_physical().is_between(start, end - 1))
        write_json(folder / f"{stem}_part_{start}_{end}.json", nested(part, *form))


def nested(frame: pl.DataFrame, levels: Sequence[str], value: str) -> dict[str, Any]:
    """Return nested objects in row order."""
    content: dict[str, Any] = {}
    for *outer, last, number in zip(
        *(frame[level].cast(pl.String).to_list() for level in levels), frame[value].to_list(), strict=True
    ):
        inner = content
        for name in outer:
            inner = inner.setdefault(name, {})
        inner[last] = number
    return content


def write_json(path: Path, content: Any) -> None:
    """Write JSON as the original study does."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(json.dumps(content, indent=4).encode())
