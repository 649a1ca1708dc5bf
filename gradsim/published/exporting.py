"""Write tables as the original study's JSON files, byte for byte as its `json.dump(..., indent=4)` does."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from gradsim.errors import StudyError, TableError
from gradsim.published.hidden import hidden_folder, move_out
from gradsim.published.layout import (
    WHOLE_STUDY,
    check_names,
    dots_path,
    parameters_path,
    projections_paths,
    similarity_path,
)
from gradsim.study import ImportedModel
from gradsim.tables import State, Store
from gradsim.tables.files import atomic_path
from gradsim.tables.lineage import IMPORTED_TABLES

_TABLES = tuple(table for table in IMPORTED_TABLES if table != "candidates")
_INDENT = 4


def export_published(store: Store, folder: Path) -> tuple[list[Path], list[str]]:
    """Write the combined tables and layer sizes of a study in the original layout, either all of them or none.

    The layout has room for one projection per dimension. If a study has several, its first one is written.

    Args:
        store: Tables of the study.
        folder: Folder to create `data/` and `results/` in. Neither may exist, because older files would be read as
            parts of the new tables.

    Returns:
        The files, and sentences about what was omitted.

    Raises:
        TableError: A table is missing or stale, or a file cannot be written.
        StudyError: `data/` or `results/` exists, the folder cannot be written, or the model's name is not a valid
            folder name.
    """
    for taken in (folder / "data", folder / "results"):
        if taken.exists():
            raise StudyError(f"{taken}: already exists and would be mixed with the export; choose an empty folder")
    _refuse_stale(store)
    try:
        with hidden_folder(folder, "exporting") as hidden:
            paths, left_out = _write_study(store, hidden)
            move_out(hidden)
    except OSError as error:
        raise StudyError(f"{folder}: cannot be written ({error.strerror}); choose another folder") from error
    return [folder / path.relative_to(hidden) for path in paths], left_out


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
    """Write the tables of a setting, each as one whole file that is complete or absent.

    All tables have the columns and row order of `gradsim.tables`.

    Args:
        folder: Folder of `dot_products/` and `gradient_similarity/`.
        model: Model name; may contain slashes.
        sample_size: `full` or a number.
        setting: Setting name.
        dot_products: Dot products.
        query_self: Self dot products of the queries.
        original_self: Self dot products of the originals.
        gradient_similarity: Gradient similarities.
        projected_similarity: Projected similarities, with at most one projection per dimension. Dimensions are written
            in order of appearance.

    Returns:
        The files.

    Raises:
        StudyError: A name is not a valid folder name.
        TableError: Rows are out of order, values are missing or not finite, two projections have the same dimension,
            or the folder cannot be written.
    """
    check_names(model, sample_size, setting)
    place = (folder, setting, model, sample_size)
    tables: list[tuple[Path, pl.DataFrame, tuple[str, ...], str]] = [
        (dots_path(*place, "dot_products"), dot_products, ("query_id", "original_id", "layer"), "dot"),
        (dots_path(*place, "query_self"), query_self, ("query_id", "layer"), "self_dot"),
        (dots_path(*place, "original_self"), original_self, ("original_id", "layer"), "self_dot"),
    ]
    if gradient_similarity is not None:
        tables.append((similarity_path(*place), gradient_similarity, ("query_id", "original_id"), "similarity"))
    if projected_similarity is not None:
        rows = _by_dimension(projected_similarity)
        tables.append((projections_paths(*place)[0], rows, ("dimension", "query_id", "original_id"), "similarity"))
    for path, frame, levels, value in tables:
        _write_table(path, frame, levels, value)
    return [path for path, *_ in tables]


def _refuse_stale(store: Store) -> None:
    study = store.study
    fix = "import the results again" if study.imported else f"run gradsim combine {study.name}"
    for setting in study.settings:
        for table in _TABLES:
            key = store.lineage.key(table, setting, "results")
            if (state := store.state(key)) is not State.FRESH:
                raise TableError(f"{store.path(key)}: {state}, so it cannot be exported; {fix}")


def _write_study(store: Store, folder: Path) -> tuple[list[Path], list[str]]:
    """Write all tables below a folder; return the files, and sentences about what was omitted."""
    study = store.study
    if isinstance(study.model, ImportedModel):
        model = study.model.imported
    else:
        model = store.provenance(store.lineage.key("model")).model or study.name
    paths: list[Path] = []
    left_out: list[str] = []
    for setting in study.settings:
        tables = {table: store.read(store.lineage.key(table, setting, "results")) for table in _TABLES}
        projected, others = _one_of_each_dimension(tables.pop("projected_similarity"))
        left_out += (
            f"{setting}: {projection}, because another projection also has {dimension:,} dimensions"
            for projection, dimension in others
        )
        paths += write_published(
            folder / "data",
            model=model,
            sample_size=WHOLE_STUDY if study.first_samples is None else str(study.size),
            setting=setting,
            projected_similarity=projected if projected.height else None,
            **tables,
        )
    sizes = store.read(store.lineage.layers_key).select("layer", "parameters")
    if not sizes["parameters"].null_count():
        paths.append(parameters_path(folder / "data", model))
        with atomic_path(paths[-1]) as partial:
            partial.write_text(json.dumps(dict(sizes.iter_rows()), indent=_INDENT), encoding="ascii")
    return paths, left_out


def _one_of_each_dimension(projected: pl.DataFrame) -> tuple[pl.DataFrame, list[tuple[str, int]]]:
    """Return the rows of the first projection to each dimension, and the names and dimensions of the others."""
    there = projected.select("projection", "dimension").unique(maintain_order=True)
    first = there.unique("dimension", keep="first", maintain_order=True)
    others = there.join(first, on=["projection", "dimension"], how="anti", maintain_order="left")
    kept = projected.join(first, on=["projection", "dimension"], how="semi", maintain_order="left")
    return kept, others.rows()


def _by_dimension(projected: pl.DataFrame) -> pl.DataFrame:
    """Return the rows grouped by dimension; combined tables are grouped by partition instead.

    Raises:
        TableError: Two projections have the same dimension.
    """
    kinds = projected.group_by("dimension", maintain_order=True).agg(pl.col("projection").unique(maintain_order=True))
    for dimension, names in kinds.filter(pl.col("projection").list.len() > 1).iter_rows():
        raise TableError(
            f"projected_similarity has {len(names)} projections to {dimension} dimensions ({', '.join(names)}), but "
            "the layout has room for one; choose one"
        )
    first = pl.col("position").min().over("dimension")
    return projected.with_row_index("position").sort(first, maintain_order=True).drop("position")


def _write_table(path: Path, frame: pl.DataFrame, levels: Sequence[str], value: str) -> None:
    if bad := frame.filter(~pl.col(value).is_finite().fill_null(False)).height:
        raise TableError(f"{path.stem}: {bad} values of {value} are missing or not finite; compute them again")
    with atomic_path(path) as partial, partial.open("w", encoding="ascii", newline="\n") as file:
        before = "{"
        for key, content in _objects(frame, levels, value):
            # Indenting the text is safe because JSON strings contain no raw line breaks.
            text = json.dumps(content, indent=_INDENT).replace("\n", "\n" + " " * _INDENT)
            file.write(f"{before}\n{' ' * _INDENT}{json.dumps(key)}: {text}")
            before = ","
        file.write("\n}" if before == "," else "{}")


def _objects(frame: pl.DataFrame, levels: Sequence[str], value: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield each outermost key with its content.

    Raises:
        TableError: Rows of the same key are not contiguous or out of order, or a row is a duplicate.
    """
    lengths = frame[levels[0]].rle().struct.field("len").to_numpy()
    starts = np.cumsum(lengths) - lengths
    seen: set[str] = set()
    for start, length in zip(starts.tolist(), lengths.tolist(), strict=True):
        rows = frame[start : start + length]
        key = str(rows[levels[0]][0])
        if key in seen:
            raise TableError(f"rows of {levels[0]} {key!r} are not contiguous; sort them as the store does")
        seen.add(key)
        if levels[0] == "query_id" and "rank" in rows.columns and not rows["rank"].is_sorted():
            raise TableError(f"rows of query {key!r} are not in the order of rank; sort them as the store does")
        content: dict[str, Any] = {}
        names = [rows[level].to_list() for level in levels[1:]]
        for *outer, last, number in zip(*names, rows[value].to_list(), strict=True):
            inner = content
            for name in outer:
                inner = inner.setdefault(name, {})
            if last in inner:
                place = ", ".join([key, *outer, last])
                raise TableError(f"the row of {place} is a duplicate; combine the partitions again")
            inner[last] = number
        yield key, content
