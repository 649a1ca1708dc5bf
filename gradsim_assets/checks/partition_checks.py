"""Blocking asset checks: stored partitions have to be complete, with valid ids and possible numbers."""

from collections.abc import Iterator

import dagster as dg

from gradsim.study import Study
from gradsim.tables import Lineage, TableKey
from gradsim.tables.validation import CHECK, CHECKS, validate
from gradsim_assets.checks.verdicts import Verdict, evaluations
from gradsim_assets.keys import asset_key
from gradsim_assets.partitions import query_ranges
from resources.storage import StorageResource


def partition_checks(study: Study) -> list[dg.AssetChecksDefinition]:
    """Return the checks of every partitioned table, one step per table."""
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
        verdicts = {
            partition: {name: Verdict(fault) for name, fault in validate(store, key, partition).items()}
            for partition in context.op_execution_context.partition_keys
        }
        yield from evaluations(context, asset_key(key), verdicts, blocking=True)

    return checks
