"""Published results as a study of their own, and a study's results as published ones."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import yaml

from gradsim.analysis import gradient_similarity
from gradsim.analysis.projections import AS_PUBLISHED
from gradsim.errors import StudyError
from gradsim.projected_dimensions import published_dimension
from gradsim.published.assembling import PROJECTION, Published, PublishedSetting
from gradsim.published.layout import WHOLE_STUDY, parameters_path
from gradsim.published.writing import write_published
from gradsim.study import ImportedModel, Study
from gradsim.study.loading import IMPORTED_FILE
from gradsim.tables import SCHEMAS, Provenance, Store
from gradsim.tables.files import atomic_path
from gradsim.tables.lineage import IMPORTED_TABLES

# The original's projections, as its code made them.
_KIND = "rademacher"

# Cosines that were summed in float32 are off by less.
_ROUNDING = 1e-5

# Its shares are whole hundredths of a percent.
_SHARE_DIGITS = 4


@dataclass(frozen=True)
class Imported:
    """What an import came to.

    Attributes:
        store: the study's tables.
        findings: what was noticed and how it was resolved, in sentences.
    """

    store: Store
    findings: tuple[str, ...]


def refuse_taken(data_root: Path, name: str, *, force: bool) -> None:
    """Whether a study of this name can be imported.

    Raises:
        StudyError: there are tables that were computed, or others that were imported and `force` is not set.
    """
    folder = data_root / name
    if (folder / IMPORTED_FILE).is_file():
        if not force:
            raise StudyError(
                f"{folder}: study '{name}' was imported before; --force replaces it, or choose another name"
            )
    elif folder.exists():
        raise StudyError(f"{folder}: holds what study '{name}' has computed; choose another name for the import")


def store_published(published: Published, data_root: Path, name: str) -> Imported:
    """Write published results as tables of a study; what an earlier import left there is removed first.

    Args:
        published: what was read.
        data_root: where tables lie.
        name: of the study.

    Raises:
        TableError: the data root cannot be written.
    """
    study, findings = _study_of(published, name), list(published.findings)
    shutil.rmtree(data_root / name, ignore_errors=True)
    # First of all, so that an import that was cut off is known as one.
    _write_definition(study, data_root / name / IMPORTED_FILE)
    store = Store(data_root, study)
    provenance = Provenance(model=published.model)
    model = _model_table(published)
    tables = {
        store.lineage.key("samples"): pl.DataFrame({"id": published.ids}).with_columns(
            messages=pl.lit(None, SCHEMAS["samples"].columns["messages"].dtype)
        ),
        store.lineage.key("model"): model,
        store.lineage.key("projections"): _projections_table(published, model, findings),
    }
    for setting, its in published.settings.items():
        for table, rows in _setting_tables(its, f"Setting {setting}", findings).items():
            tables[store.lineage.key(table, setting, "results")] = rows
    for key, rows in tables.items():
        store.write(key, rows, provenance=provenance)
    return Imported(store, tuple(findings))


def export_published(store: Store, folder: Path) -> tuple[list[Path], list[str]]:
    """Write the combined tables of a study's settings, and its layers' sizes, in the original's layout.

    Of several projections to as many dimensions the study's first is written, because the layout has room for one.

    Args:
        store: the study's tables.
        folder: gets `data/` and `results/`; older files beside the new ones would be read as parts of them.

    Returns:
        The files, and what was left out, in sentences.

    Raises:
        TableError: a table is missing or stale, or the folder cannot be written.
        StudyError: the folder has such results already, or the model's name cannot be a folder's.
    """
    study, key, model = store.study, store.lineage.key, _model_name(store)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StudyError(f"{folder}: cannot be written ({error.strerror}); name another folder") from error
    for taken in (folder / "data", folder / "results"):
        if taken.exists():
            raise StudyError(f"{taken}: is there already, and would be mixed with the export; name an empty folder")
    size = WHOLE_STUDY if study.first_samples is None else str(study.size)
    paths: list[Path] = []
    left_out: list[str] = []
    for setting in study.settings:
        tables = {
            table: store.read(key(table, setting, "results")) for table in IMPORTED_TABLES if table != "candidates"
        }
        projected = tables.pop("projected_similarity")
        first = _first_of_each_dimension(projected)
        for projection, dimension in (
            projected.select("projection", "dimension").unique(maintain_order=True).iter_rows()
        ):
            if (projection, dimension) not in first:
                left_out.append(f"{setting}: {projection}, for another projection has {dimension:,} dimensions, too")
        kept = pl.struct("projection", "dimension").is_in([{"projection": p, "dimension": d} for p, d in first])
        paths += write_published(
            folder / "data",
            model=model,
            sample_size=size,
            setting=setting,
            projected_similarity=projected.filter(kept) if first else None,
            **tables,
        )
    return [*paths, *_write_sizes(store, parameters_path(folder / "data", model))], left_out


def _write_sizes(store: Store, path: Path) -> list[Path]:
    sizes = store.read(store.lineage.key("model")).select(pl.col("layer").cast(pl.String), "parameters")
    if sizes["parameters"].null_count():
        return []
    with atomic_path(path) as partial:
        partial.write_text(json.dumps(dict(sizes.iter_rows()), indent=4), encoding="ascii")
    return [path]


def _study_of(published: Published, name: str) -> Study:
    queries = {setting.candidates["query_id"].n_unique() for setting in published.settings.values()}
    whole = published.sample_size == WHOLE_STUDY
    return Study.model_validate(
        {
            "name": name,
            "description": f"Published results of {published.model}, imported",
            "dataset": {"imported": published.digest},
            "samples": max(queries),
            "first_samples": None if whole else int(published.sample_size),
            "model": {"imported": published.model},
            "settings": {setting: {"method": "imported"} for setting in published.settings},
        }
    )


def _write_definition(study: Study, path: Path) -> None:
    content = study.model_dump(mode="json", exclude={"name"}, exclude_defaults=True)
    with atomic_path(path) as partial:
        partial.write_text(
            "# Written by `gradsim import-published`, as the tables beside it were.\n"
            + yaml.safe_dump(content, sort_keys=False, allow_unicode=True),
            encoding="utf-8",
        )


def _model_table(published: Published) -> pl.DataFrame:
    """Layers with their sizes, if all are known: a share of the parameters needs every one."""
    sizes = [published.parameters[layer] for layer in published.layers]
    known = None not in sizes
    return pl.DataFrame(
        {
            "layer": list(published.layers),
            "shape": [None] * len(sizes),
            "parameters": sizes if known else [None] * len(sizes),
        },
        schema={"layer": pl.String, "shape": pl.List(pl.Int64), "parameters": pl.Int64},
    )


def _projections_table(published: Published, model: pl.DataFrame, findings: list[str]) -> pl.DataFrame:
    """Dimensions of each layer, by the original's rule; without rows where they cannot be told."""
    empty = SCHEMAS["projections"].empty()
    dimensions = sorted(
        {
            dimension
            for setting in published.settings.values()
            if setting.projected_similarity is not None
            for dimension in setting.projected_similarity["dimension"].unique()
        }
    )
    if not dimensions or model["parameters"].null_count():
        return empty
    total = int(model["parameters"].sum())
    frames = [empty]
    for dimension in dimensions:
        share = round(dimension / total, _SHARE_DIGITS)
        if published_dimension(share, total) != dimension:
            findings.append(
                f"The projections to {dimension:,} dimensions are of no share of the {total:,} parameters that the "
                "original's rule rounds so; they are not compared with theory."
            )
            continue
        frames.append(
            model.select(
                pl.lit(PROJECTION).alias("projection"),
                pl.lit(dimension, pl.Int64).alias("dimension"),
                pl.lit(_KIND).alias("kind"),
                pl.lit(AS_PUBLISHED).alias("scaling"),
                pl.lit(f"{_KIND}_{100 * share:.12g}pct".replace(".", "_")).alias("projector"),
                "layer",
                "parameters",
                layer_dimension=pl.Series(
                    [min(n, published_dimension(share, n)) for n in model["parameters"]], dtype=pl.Int64
                ),
            )
        )
    return pl.concat(frames)


def _setting_tables(setting: PublishedSetting, name: str, findings: list[str]) -> dict[str, pl.DataFrame]:
    """The combined tables; gradient similarity is that of the dots where it was not published."""
    computed = gradient_similarity(setting.dot_products, setting.query_self, setting.original_self)
    similarity = computed if setting.gradient_similarity is None else setting.gradient_similarity
    apart = np.abs(similarity["similarity"].to_numpy() - computed["similarity"].to_numpy()).max()
    if apart > _ROUNDING:
        findings.append(
            f"{name}: its gradient similarities and those of its dots are up to {apart:.2g} apart; full-gradient "
            "analyses follow the former, those of layers the latter."
        )
    projected = setting.projected_similarity
    return {
        "candidates": setting.candidates,
        "dot_products": setting.dot_products,
        "query_self": setting.query_self,
        "original_self": setting.original_self,
        "gradient_similarity": similarity,
        "projected_similarity": SCHEMAS["projected_similarity"].empty() if projected is None else projected,
    }


def _first_of_each_dimension(projected: pl.DataFrame) -> set[tuple[str, int]]:
    first = projected.select("projection", "dimension").unique("dimension", keep="first", maintain_order=True)
    return set(first.iter_rows())


def _model_name(store: Store) -> str:
    if isinstance(store.study.model, ImportedModel):
        return store.study.model.imported
    return store.provenance(store.lineage.key("model")).model or store.study.name
