"""Tables as assets: what the web UI shows of one before it is materialized, and what it depends on."""

from collections.abc import Callable, Mapping
from typing import Any

import dagster as dg

from gradsim.tables import SCHEMAS, Lineage, TableKey, TableSchema
from gradsim.tables.lineage import TRANSFER
from gradsim_assets.dispatch import Dispatch
from gradsim_assets.keys import asset_key
from gradsim_assets.partitions import query_ranges

OWNERS = ["team:gradsim"]


def table_asset(
    lineage: Lineage,
    key: TableKey,
    *,
    kinds: set[str],
    ins: Mapping[str, TableKey] | None = None,
    dispatch: Dispatch | None = None,
    runs_job: bool = False,
) -> Callable[[Callable[..., Any]], dg.AssetsDefinition]:
    """A decorator that makes the asset of a table from the function that computes it.

    Args:
        lineage: of the study; it says what the table is made from and whether it has partitions.
        key: the table.
        kinds: what is used and stored.
        ins: the function's arguments that are tables; other inputs are dependencies that it reads by itself.
        dispatch: how a table's partitions are put into runs, and where jobs wait.
        runs_job: whether the function runs a partition job.
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
            ins={name: dg.AssetIn(asset_key(source)) for name, source in ins.items()},
            deps=[asset_key(source) for source in node.inputs if source not in set(ins.values())],
            partitions_def=specification.partitions_def,
            backfill_policy=dispatch.backfill_policy if dispatch and node.partitioned else None,
            pool=dispatch.pool if dispatch and runs_job else None,
        )(function)
        return definition

    return decorate


def table_spec(lineage: Lineage, key: TableKey, *, kinds: set[str]) -> dg.AssetSpec:
    """A table's asset where there is no function of its own: steps that make several, and imported tables."""
    node, schema = lineage[key], SCHEMAS[key.name]
    return dg.AssetSpec(
        asset_key(key),
        description=schema.description,
        group_name=group_of(key),
        owners=OWNERS,
        kinds=kinds,
        metadata={"dagster/column_schema": column_schema(schema)},
        deps=[asset_key(source) for source in node.inputs],
        partitions_def=query_ranges(lineage.study) if node.partitioned else None,
    )


def group_of(key: TableKey) -> str:
    """Which assets stand together: a study's, its settings', their analyses; no two groups depend on each other."""
    if key.name in {"report", TRANSFER}:  # from all settings, which are from the study's
        return f"{key.study}_report"
    if key.setting is None:
        return key.study
    return "_".join([key.study, key.setting, *(["analysis"] if key.room == "analysis" else [])])


def column_schema(schema: TableSchema) -> dg.TableSchema:
    """Columns with their types and meanings."""
    return dg.TableSchema(
        columns=[
            dg.TableColumn(name, _type_name(column.dtype), description=column.description)
            for name, column in schema.columns.items()
        ]
    )


def _type_name(dtype: Any) -> str:
    return "string" if str(dtype).startswith("Enum") else str(dtype).lower()
