"""Import published results as a study without a model."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import yaml

from gradsim.analysis import gradient_similarity
from gradsim.analysis.projections import AS_PUBLISHED
from gradsim.errors import StudyError
from gradsim.gradients.projection.dimensions import published_dimension
from gradsim.published.assembling import PROJECTION, Published
from gradsim.published.hidden import hidden_folder, move_out
from gradsim.published.layout import WHOLE_STUDY
from gradsim.study import Study
from gradsim.study.loading import IMPORTED_FILE, load_study
from gradsim.tables import SCHEMAS, Lineage, Provenance, Store, TableKey
from gradsim.tables.files import atomic_path, writing_to
from gradsim.tables.lineage import DOT_TABLES

_KIND = "rademacher"  # kind of the original study's projections
_ROUNDING = 1e-5  # above the rounding error of a cosine computed in float32

# Candidate shares of the parameters: multiples of 0.01 %.
_SHARES = tuple(hundredths / 10_000 for hundredths in range(1, 10_001))


@dataclass(frozen=True)
class Imported:
    """Result of an import.

    Attributes:
        store: Tables of the study.
        findings: Sentences about irregularities and how they were resolved.
    """

    store: Store
    findings: tuple[str, ...]


def refuse_taken(data_root: Path, name: str, *, force: bool) -> None:
    """Check that the tables of an imported study can be stored under this name.

    Args:
        data_root: Folder of all tables.
        name: Study name.
        force: Allow replacing an earlier import.

    Raises:
        StudyError: The name is used by an earlier import and `force` is not set, or by anything that may not be an
            import.
    """
    folder = data_root / name
    definition = folder / IMPORTED_FILE
    if not os.path.lexists(folder):
        return
    if not definition.is_file():
        raise StudyError(f"{folder}: already exists and is not an imported study; choose another name for the import")
    try:
        imported = load_study(definition).imported
    except StudyError as error:
        raise StudyError(
            f"{error} - or remove {folder} yourself, or choose another name for the import: the folder may contain "
            "computed results, so it is not replaced"
        ) from error
    if not imported:
        raise StudyError(f"{folder}: contains results computed by study '{name}'; choose another name for the import")
    if not force:
        raise StudyError(
            f"{folder}: study '{name}' was imported before; use --force to replace it, or choose another name"
        )


def store_published(published: Published, data_root: Path, name: str, *, force: bool = False) -> Imported:
    """Store published results as the tables of a study, either all of them or none.

    Args:
        published: Results to store.
        data_root: Folder of all tables.
        name: Study name.
        force: Replace an earlier import of this name, including tables computed from it.

    Returns:
        The stored tables, and the findings of reading and importing them.

    Raises:
        StudyError: The name is taken (see `refuse_taken`), or a replaced folder cannot be removed.
        TableError: The data root cannot be written.
    """
    study, findings = _study_of(published, name), list(published.findings)
    refuse_taken(data_root, name, force=force)
    tables = _tables(published, Lineage(study), findings)
    with writing_to(data_root / name), hidden_folder(data_root, f"{name}.importing") as hidden:
        _write_definition(study, hidden / name / IMPORTED_FILE)
        store = Store(hidden, study)
        for key, rows in tables.items():
            measured = {"findings": findings} if key.name == "samples" else {}
            store.write(key, rows, provenance=Provenance(model=published.model, measured=measured))
        refuse_taken(data_root, name, force=force)  # again, because writing takes time
        move_out(hidden, replace=True)
    return Imported(Store(data_root, study), tuple(findings))


def _tables(published: Published, lineage: Lineage, findings: list[str]) -> dict[TableKey, pl.DataFrame]:
    """Return all tables to store, starting with those that define the ids and layers of the others."""
    model = _model_table(published)
    tables = {
        lineage.key("samples"): pl.DataFrame({"id": published.ids}).with_columns(
            messages=pl.lit(None, SCHEMAS["samples"].columns["messages"].dtype)
        ),
        lineage.key("model"): model,
        lineage.key("projections"): _projections_table(published, model, findings),
    }
    for setting, its in published.settings.items():
        for table, rows in _setting_tables(its, f"Setting {setting}", findings).items():
            tables[lineage.key(table, setting, "results")] = rows
    return tables


def _study_of(published: Published, name: str) -> Study:
    queries = {tables["candidates"]["query_id"].n_unique() for tables in published.settings.values()}
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
    content = study.model_dump(mode="json", exclude={"name", "settings"}, exclude_defaults=True)
    content["settings"] = {name: {"method": setting.method} for name, setting in study.settings.items()}
    with atomic_path(path) as partial:
        partial.write_text(
            "# Written by `gradsim import-published`, like the tables beside it.\n"
            + yaml.safe_dump(content, sort_keys=False, allow_unicode=True),
            encoding="utf-8",
        )


def _model_table(published: Published) -> pl.DataFrame:
    """Return the layers and their sizes, all null if any is unknown: a share of the parameters requires every one."""
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
    """Return the dimension of each layer in each projection, by the original study's rounding rule.

    Empty if the layer sizes are unknown. Projections without a unique share of the parameters are omitted and
    reported in `findings`.
    """
    empty = SCHEMAS["projections"].empty()
    dimensions = sorted(
        {
            dimension
            for tables in published.settings.values()
            if "projected_similarity" in tables
            for dimension in tables["projected_similarity"]["dimension"].unique()
        }
    )
    if not dimensions or model["parameters"].null_count():
        return empty
    total = int(model["parameters"].sum())
    frames = [empty]
    for dimension in dimensions:
        shares = [share for share in _SHARES if published_dimension(share, total) == dimension]
        if len(shares) != 1:
            found = f"{len(shares)} shares ({shares[0]:.2%} to {shares[-1]:.2%})" if shares else "no share"
            findings.append(
                f"By the original study's rounding rule, {dimension:,} dimensions correspond to {found} of the "
                f"{total:,} parameters; these projections are not compared with theory."
            )
            continue
        (share,) = shares
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


def _setting_tables(tables: Mapping[str, pl.DataFrame], name: str, findings: list[str]) -> dict[str, pl.DataFrame]:
    """Return the combined tables, with gradient similarities computed from the dot products if not published."""
    computed = gradient_similarity(*(tables[table] for table in DOT_TABLES))
    similarity = tables.get("gradient_similarity", computed)
    apart = np.abs(similarity["similarity"].to_numpy() - computed["similarity"].to_numpy()).max()
    if apart > _ROUNDING:
        findings.append(
            f"{name}: published gradient similarities differ by up to {apart:.2g} from those computed from the dot "
            "products; full-gradient analyses use the former, analyses of layers the latter."
        )
    nothing = SCHEMAS["projected_similarity"].empty()
    return {"projected_similarity": nothing, **tables, "gradient_similarity": similarity}
