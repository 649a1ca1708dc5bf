"""Tables as the original's JSON files, byte for byte as its own `json.dump(..., indent=4)` would have written them."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from gradsim.errors import TableError
from gradsim.published.layout import checked_names, dots_path, projections_path, similarity_path
from gradsim.tables.files import atomic_path

_INDENT = 4


def write_published(
    folder: Path,
    *,
    model: str,
    sample_size: str,
    setting: str,
    dot_products: pl.DataFrame,
    query_self: pl.DataFrame,
    original_self: pl.DataFrame,
    gradient_similarity: pl.DataFrame | None = None,
    projected_similarity: pl.DataFrame | None = None,
) -> list[Path]:
    """Writes a setting's tables, each as one whole file that is there completely or not at all.

    Args:
        folder: the one that holds `dot_products/` and `gradient_similarity/`, or will.
        model: its name, perhaps with slashes.
        sample_size: `full` or a number.
        setting: its name.
        dot_products: columns and row order as `gradsim.tables` has them, as of the others.
        query_self: self dots of the queries.
        original_self: self dots of the originals.
        gradient_similarity: cosines.
        projected_similarity: of at most one projection a dimension, because the layout names no more than that;
            dimensions are written in the order in which they appear.

    Returns:
        The files.

    Raises:
        StudyError: a name cannot name a folder.
        TableError: rows are not in the tables' order, values are missing or not finite, two projections have the same
            dimension, or the folder cannot be written.
    """
    checked_names(model, sample_size, setting)
    place = (setting, model, sample_size)
    tables: list[tuple[Path, pl.DataFrame, tuple[str, ...], str]] = [
        (dots_path(folder, *place, "dot_products"), dot_products, ("query_id", "original_id", "layer"), "dot"),
        (dots_path(folder, *place, "query_self"), query_self, ("query_id", "layer"), "self_dot"),
        (dots_path(folder, *place, "original_self"), original_self, ("original_id", "layer"), "self_dot"),
    ]
    if gradient_similarity is not None:
        levels: tuple[str, ...] = ("query_id", "original_id")
        tables.append((similarity_path(folder, *place), gradient_similarity, levels, "similarity"))
    if projected_similarity is not None:
        _refuse_two_projections(projected_similarity)
        levels = ("dimension", "query_id", "original_id")
        tables.append(
            (projections_path(folder, *place), _dimensions_together(projected_similarity), levels, "similarity")
        )
    for path, frame, levels, value in tables:
        _write(path, frame, levels, value)
    return [path for path, *_ in tables]


def _refuse_two_projections(projected: pl.DataFrame) -> None:
    kinds = projected.group_by("dimension", maintain_order=True).agg(pl.col("projection").unique(maintain_order=True))
    for dimension, names in kinds.filter(pl.col("projection").list.len() > 1).iter_rows():
        raise TableError(
            f"projected_similarity has {len(names)} projections to {dimension} dimensions ({', '.join(names)}), of "
            "which the layout holds one; choose one"
        )


def _dimensions_together(projected: pl.DataFrame) -> pl.DataFrame:
    """A combined table has partition after partition, and all dimensions in each."""
    first = pl.col("position").min().over("dimension")
    return projected.with_row_index("position").sort(first, maintain_order=True).drop("position")


def _write(path: Path, frame: pl.DataFrame, levels: Sequence[str], value: str) -> None:
    if bad := frame.filter(~pl.col(value).is_finite().fill_null(False)).height:
        raise TableError(f"{path.stem}: {bad} values of {value} are missing or not finite; compute them again")
    with atomic_path(path) as partial, partial.open("w", encoding="ascii", newline="\n") as file:
        before = "{"
        for key, content in _objects(frame, levels, value):
            # Strings have no line break of their own in JSON.
            text = json.dumps(content, indent=_INDENT).replace("\n", "\n" + " " * _INDENT)
            file.write(f"{before}\n{' ' * _INDENT}{json.dumps(key)}: {text}")
            before = ","
        file.write("\n}" if before == "," else "{}")


def _objects(frame: pl.DataFrame, levels: Sequence[str], value: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The outermost keys with what they hold, one after the other.

    Raises:
        TableError: rows of the same key do not stand together or not in order, or one stands twice.
    """
    lengths = frame[levels[0]].rle().struct.field("len").to_numpy()
    starts = np.cumsum(lengths) - lengths
    seen: set[str] = set()
    for start, length in zip(starts.tolist(), lengths.tolist(), strict=True):
        rows = frame[start : start + length]
        key = str(rows[levels[0]][0])
        if key in seen:
            raise TableError(f"rows of {levels[0]} {key!r} do not stand together; sort them as the store does")
        seen.add(key)
        if levels[0] == "query_id" and "rank" in rows.columns and not rows["rank"].is_sorted():
            raise TableError(f"rows of query {key!r} are not in the order of rank; sort them as the store does")
        names = [rows[level].cast(pl.String).to_list() for level in levels[1:]]
        yield key, _nested(names, rows[value].to_list())


def _nested(names: Sequence[Sequence[str]], values: Sequence[float]) -> dict[str, Any]:
    """Values by the names of each level, outer first."""
    content: dict[str, Any] = {}
    for *outer, last, value in zip(*names, values, strict=True):
        inner = content
        for name in outer:
            inner = inner.setdefault(name, {})
        if last in inner:
            raise TableError(f"the row of {', '.join([*outer, last])} stands twice; combine the partitions again")
        inner[last] = value
    return content
