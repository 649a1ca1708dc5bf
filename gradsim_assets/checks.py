"""Asset checks: whether stored partitions are complete and their numbers possible. They block what lies downstream."""

from collections.abc import Iterator

import dagster as dg

from gradsim.study import Study
from gradsim.tables import Lineage, TableKey
from gradsim.tables.validation import CHECK, CHECKS, validate
from gradsim_assets.keys import asset_key
from gradsim_assets.partitions import query_ranges
from resources.storage import StorageResource


def partition_checks(study: Study, setting: str) -> list[dg.AssetChecksDefinition]:
    """For every table of a setting that has partitions: its checks, evaluated in one step."""
    lineage = Lineage(study)
    return [_checks(study, lineage.key(table, setting)) for table in CHECKS]


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
    def checks(context: dg.AssetCheckExecutionContext, storage: StorageResource) -> Iterator[dg.AssetCheckResult]:
        store = storage.store(study)
        partitions = context.op_execution_context.partition_keys
        faults = {partition: validate(store, key, partition) for partition in partitions}
        for check in sorted(context.selected_asset_check_keys):
            found = {partition: fault[check.name] for partition, fault in faults.items() if fault[check.name]}
            yield dg.AssetCheckResult(
                asset_key=check.asset_key,
                check_name=check.name,
                passed=not found,
                description="; ".join(f"{partition}: {fault}" for partition, fault in found.items()) or None,
                metadata={"partitions": ", ".join(partitions)},
            )

    return checks
