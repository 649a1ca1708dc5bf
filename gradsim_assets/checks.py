"""Asset checks: whether stored partitions are complete and their numbers possible. They block what lies downstream."""

from collections.abc import Iterator

import dagster as dg
from dagster._core.definitions.asset_checks.asset_check_evaluation import (
    AssetCheckEvaluationTargetMaterializationData as TargetMaterialization,
)

from gradsim.study import Study
from gradsim.tables import Lineage, TableKey
from gradsim.tables.validation import CHECK, CHECKS, validate
from gradsim_assets.keys import asset_key
from gradsim_assets.partitions import query_ranges
from resources.storage import StorageResource


def partition_checks(study: Study) -> list[dg.AssetChecksDefinition]:
    """For every table that has partitions: its checks, evaluated in one step."""
    return [_checks(study, node.key) for node in Lineage(study) if node.partitioned]


def _checks(study: Study, key: TableKey) -> dg.AssetChecksDefinition:
    @dg.multi_asset_check(
        name="__".join([*key.parts, "checks"]),
        specs=[
            dg.AssetCheckSpec(
                name,
                asset=asset_key(key),
                description=CHECK[name].__doc__,
                blocking=True,
                partitions_def=query_ranges(study),
            )
            for name in CHECKS[key.name]
        ],
        can_subset=True,
    )
    def checks(
        context: dg.AssetCheckExecutionContext, storage: StorageResource
    ) -> Iterator[dg.AssetCheckEvaluation | dg.AssetCheckResult]:
        store = storage.store(study)
        step = context.op_execution_context
        faults = {partition: validate(store, key, partition) for partition in step.partition_keys}
        names = [check.name for check in sorted(context.selected_asset_check_keys)]
        if not step.has_partition_key:  # a run over a range, which may also be of one partition
            yield from _by_partition(step.instance, asset_key(key), names, faults)
        for name in names:
            found = {partition: fault[name] for partition, fault in faults.items() if fault[name]}
            yield dg.AssetCheckResult(
                asset_key=asset_key(key),
                check_name=name,
                passed=not found,
                description="; ".join(f"{partition}: {fault}" for partition, fault in found.items()) or None,
                metadata={"partitions": ", ".join(faults)},
            )

    return checks


def _by_partition(
    instance: dg.DagsterInstance, asset: dg.AssetKey, names: list[str], faults: dict[str, dict[str, str | None]]
) -> Iterator[dg.AssetCheckEvaluation]:
    """One evaluation a partition: in a run over a range, Dagster 1.13 would record a single one, of none of them."""
    for partition, fault in faults.items():
        target = _latest_materialization(instance, asset, partition)
        for name in names:
            yield dg.AssetCheckEvaluation(
                asset,
                name,
                passed=fault[name] is None,
                description=fault[name],
                target_materialization_data=target,
                blocking=True,
                partition=partition,
            )


def _latest_materialization(
    instance: dg.DagsterInstance, asset: dg.AssetKey, partition: str
) -> TargetMaterialization | None:
    """What an evaluation is of; the web UI shows none that does not name the partition's latest materialization."""
    found = instance.fetch_materializations(dg.AssetRecordsFilter(asset, asset_partitions=[partition]), limit=1)
    if not found.records:
        return None
    latest = found.records[0]
    return TargetMaterialization(storage_id=latest.storage_id, run_id=latest.run_id, timestamp=latest.timestamp)
