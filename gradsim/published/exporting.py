"""A study's results as published ones."""

import json
from pathlib import Path

import polars as pl

from gradsim.errors import StudyError, TableError
from gradsim.published.hidden import hidden_folder
from gradsim.published.layout import WHOLE_STUDY, parameters_path
from gradsim.published.writing import write_published
from gradsim.study import ImportedModel
from gradsim.tables import State, Store
from gradsim.tables.files import atomic_path
from gradsim.tables.lineage import IMPORTED_TABLES

_TABLES = tuple(table for table in IMPORTED_TABLES if table != "candidates")


def export_published(store: Store, folder: Path) -> tuple[list[Path], list[str]]:
    """Write the combined tables of a study's settings, and its layers' sizes, in the original's layout: all or none.

    Of several projections to as many dimensions the study's first is written, because the layout has room for one.

    Args:
        store: the study's tables.
        folder: gets `data/` and `results/`; older files beside the new ones would be read as parts of them.

    Returns:
        The files, and what was left out, in sentences.

    Raises:
        TableError: a table is missing or stale, or the folder cannot be written.
        StudyError: the folder has such results already or cannot be made, or the model's name cannot be a folder's.
    """
    for taken in (folder / "data", folder / "results"):
        if taken.exists():
            raise StudyError(f"{taken}: is there already, and would be mixed with the export; name an empty folder")
    _refuse_stale(store)
    try:
        with hidden_folder(folder, "exporting") as hidden:
            paths, left_out = _write(store, hidden)
            _put_in_place(hidden)
    except OSError as error:
        raise StudyError(f"{folder}: cannot be written ({error.strerror}); name another folder") from error
    return [folder / path.relative_to(hidden) for path in paths], left_out


def _refuse_stale(store: Store) -> None:
    study = store.study
    mend = "import the results again" if study.imported else f"run gradsim combine {study.name}"
    for setting in study.settings:
        for table in _TABLES:
            key = store.lineage.key(table, setting, "results")
            if (state := store.state(key)) is not State.FRESH:
                raise TableError(f"{store.path(key)}: {state}, so that it would not be exported as it is; {mend}")


def _write(store: Store, folder: Path) -> tuple[list[Path], list[str]]:
    study, model = store.study, _model_name(store)
    paths: list[Path] = []
    left_out: list[str] = []
    for setting in study.settings:
        tables = {table: store.read(store.lineage.key(table, setting, "results")) for table in _TABLES}
        projected, others = _one_of_each_dimension(tables.pop("projected_similarity"))
        left_out += (
            f"{setting}: {projection}, for another projection has {dimension:,} dimensions, too"
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
    return [*paths, *_write_sizes(store, parameters_path(folder / "data", model))], left_out


def _one_of_each_dimension(projected: pl.DataFrame) -> tuple[pl.DataFrame, list[tuple[str, int]]]:
    """Rows of the first projection to each dimension, and the other projections with their dimensions."""
    there = projected.select("projection", "dimension").unique(maintain_order=True)
    first = there.unique("dimension", keep="first", maintain_order=True)
    others = there.join(first, on=["projection", "dimension"], how="anti", maintain_order="left")
    kept = projected.join(first, on=["projection", "dimension"], how="semi", maintain_order="left")
    return kept, others.rows()


def _write_sizes(store: Store, path: Path) -> list[Path]:
    sizes = store.read(store.lineage.key("model")).select(pl.col("layer").cast(pl.String), "parameters")
    if sizes["parameters"].null_count():
        return []
    with atomic_path(path) as partial:
        partial.write_text(json.dumps(dict(sizes.iter_rows()), indent=4), encoding="ascii")
    return [path]


def _put_in_place(hidden: Path) -> None:
    """Both folders or none."""
    placed: list[Path] = []
    try:
        for made in sorted(hidden.iterdir()):
            place = hidden.parent / made.name
            made.rename(place)
            placed.append(place)
    except OSError:
        for place in placed:
            place.rename(hidden / place.name)
        raise


def _model_name(store: Store) -> str:
    if isinstance(store.study.model, ImportedModel):
        return store.study.model.imported
    return store.provenance(store.lineage.key("model")).model or store.study.name
