"""Dagster's names of a study's tables, partitions, and steps that run partition jobs."""

from functools import cache

import dagster as dg

from gradsim.study import Study
from gradsim.study.settings import QueryMethod
from gradsim.tables import TableKey
from gradsim.tables.lineage import AUDIT, GRADIENT_TABLES, INDEX, MODEL


def asset_key(key: TableKey) -> dg.AssetKey:
    """Return the asset key of a table."""
    return dg.AssetKey(list(key.parts))


def table_key(key: dg.AssetKey) -> TableKey:
    """Return the table key of an asset."""
    return TableKey.from_parts(tuple(key.path))


def query_ranges(study: Study) -> dg.StaticPartitionsDefinition:
    """Return one partition per range, such as `0000-0099`; static, because the study fixes its number of samples."""
    return _static_partitions(tuple(partition.key for partition in study.partitions))


@cache
def _static_partitions(names: tuple[str, ...]) -> dg.StaticPartitionsDefinition:
    """Return one object for equal partitions: Dagster checks all names of each new one."""
    return dg.StaticPartitionsDefinition(list(names))


def gradients_op(study: Study) -> str:
    """Return the name of the step that computes a study's gradient tables."""
    return f"{study.name}__gradients"


def job_op(study: Study, key: TableKey) -> str | None:
    """Return the name of the step that computes a table with a partition job; None for tables made without a job."""
    if key.name in GRADIENT_TABLES and key.room is None:
        return gradients_op(study)
    if key.name in (AUDIT, INDEX) or (key.name == MODEL and study.model.training):
        return "__".join(key.parts)
    method = query_method(study, key)
    return "__".join(key.parts) if method and method.runs_model else None


def query_method(study: Study, key: TableKey) -> QueryMethod | None:
    """Return the query method of a queries table; None for other tables."""
    return study.settings[str(key.setting)] if key.name == "queries" else None
