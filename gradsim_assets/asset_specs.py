"""Asset specs of tables: description, group, column schema, dependencies and partitions."""

from collections.abc import Callable, Mapping
from functools import cache, wraps
from typing import Any

import dagster as dg

from gradsim.errors import StudyError
from gradsim.study import Study
from gradsim.tables import SCHEMAS, Lineage, TableKey, TableSchema
from gradsim.tables.lineage import TRANSFER
from gradsim_assets.dispatch import Dispatch
from gradsim_assets.keys import asset_key, query_ranges
from resources.failing import failing_plainly

OWNERS = ["team:gradsim"]

REPORT = "report"

# Characters of a tag's value that Dagster allows.
_LONGEST_TAG = 63


def table_asset(
    lineage: Lineage,
    key: TableKey,
    *,
    kinds: set[str],
    ins: Mapping[str, TableKey] | None = None,
    dispatch: Dispatch | None = None,
    runs_job: bool = False,
) -> Callable[[Callable[..., Any]], dg.AssetsDefinition]:
    """Return a decorator that turns the function that computes a table into the table's asset.

    A step fails if a file that its table is read from changes while the function runs: the rows would not be those of
    the fingerprint. Errors that a user can fix become the step's failure.

    Args:
        lineage: Lineage of the study; defines the table's inputs and partitions.
        key: Key of the table.
        kinds: Kinds shown in the web UI.
        ins: Function arguments that are loaded tables; the function reads the table's other inputs itself.
        dispatch: Backfill policy of partitioned tables, and pool of partition jobs.
        runs_job: Whether the function runs a partition job.
    """
    node, ins = lineage[key], ins or {}
    specification = table_spec(lineage, key, kinds=kinds)

    def decorate(function: Callable[..., Any]) -> dg.AssetsDefinition:
        definition: dg.AssetsDefinition = dg.asset(
            key=specification.key,
            description=specification.description,
            group_name=specification.group_name,
            owners=OWNERS,
            kinds=kinds,
            metadata=specification.metadata,
            tags=specification.tags,
            code_version=specification.code_version,
            ins={name: dg.AssetIn(asset_key(source)) for name, source in ins.items()},
            deps=[asset_key(source) for source in node.inputs if source not in set(ins.values())],
            partitions_def=specification.partitions_def,
            backfill_policy=dispatch.backfill_policy if dispatch and node.partitioned else None,
            pool=dispatch.pool if dispatch and runs_job else None,
        )(failing_plainly()(_of_unchanged_files(function, lineage, key)))
        return definition

    return decorate


def _of_unchanged_files(function: Callable[..., Any], lineage: Lineage, key: TableKey) -> Callable[..., Any]:
    """Return the function with a check that the files that the table is read from are the same before and after it.

    Raises:
        StudyError: A file changed.
    """

    @wraps(function)
    def checked(*arguments: Any, **named: Any) -> Any:
        before = lineage.named_files(key)
        result = function(*arguments, **named)
        if lineage.named_files(key) != before:
            raise StudyError(f"{key}: a file that the study names changed while this table was made; run it again")
        return result

    return checked


def table_spec(lineage: Lineage, key: TableKey, *, kinds: set[str]) -> dg.AssetSpec:
    """Return the asset spec of a table, for steps that make several tables and for imported tables."""
    node, schema = lineage[key], SCHEMAS[key.name]
    return dg.AssetSpec(
        asset_key(key),
        description=schema.description,
        group_name=group_of(key),
        owners=OWNERS,
        kinds=kinds,
        metadata={"dagster/column_schema": column_schema(schema)},
        tags=tags_of(key),
        code_version=code_version(lineage, key),
        deps=[asset_key(source) for source in node.inputs],
        partitions_def=query_ranges(lineage.study) if node.partitioned else None,
    )


def run_tags(study: Study) -> dict[str, str]:
    """Return the tags of a study's runs, by which the web UI filters them."""
    return {"gradsim/study": study.name[:_LONGEST_TAG]}


def code_version(lineage: Lineage, key: TableKey) -> str:
    """Return a table's code version in Dagster: its fingerprint when the definitions were loaded.

    It differs from that of any stored table if a file that the study names cannot be read.
    """
    return _fingerprints(lineage).get(key, "a file of the study cannot be read")


@cache
def _fingerprints(lineage: Lineage) -> Mapping[TableKey, str]:
    try:
        return lineage.fingerprints()
    except StudyError:
        return {}


def stage_of(key: TableKey) -> str:
    """Return the stage of the study that makes a table: data, gradients, combined, analysis or report."""
    if key.name in {REPORT, TRANSFER}:  # made from all settings
        return "report"
    if key.room:
        return "analysis" if key.room == "analysis" else "combined"
    return "gradients" if key.setting else "data"


def group_of(key: TableKey) -> str:
    """Return a table's asset group: its setting, study and stage; the web UI cuts long names off in the middle.

    Groups form no cycle: analyses of the study alone are among its data.
    """
    stage = "data" if key.setting is None and key.name not in {REPORT, TRANSFER} else stage_of(key)
    return "_".join(part for part in (key.setting, key.study, stage) if part)


def tags_of(key: TableKey) -> dict[str, str]:
    """Return a table's tags, by which the web UI filters assets."""
    tags = {"study": key.study, "setting": key.setting, "stage": stage_of(key)}
    return {f"gradsim/{name}": value[:_LONGEST_TAG] for name, value in tags.items() if value}


def column_schema(schema: TableSchema) -> dg.TableSchema:
    """Return a table's columns with their types and descriptions, for the web UI."""
    return dg.TableSchema(
        columns=[
            dg.TableColumn(name, _type_name(column.dtype), description=column.description)
            for name, column in schema.columns.items()
        ]
    )


def _type_name(dtype: Any) -> str:
    return "string" if str(dtype).startswith("Enum") else str(dtype).lower()
