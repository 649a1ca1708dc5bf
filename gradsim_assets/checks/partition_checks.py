"""Asset checks of partitions, and the blocking ones: complete rows, valid ids and possible numbers."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import dagster as dg
from dagster._core.definitions.asset_checks.asset_check_evaluation import (
    AssetCheckEvaluationTargetMaterializationData as TargetMaterialization,
)

from gradsim.tables import Lineage, Store, TableKey
from gradsim.tables.validation import CHECK, CHECKS, validate
from gradsim_assets.keys import asset_key, query_ranges
from resources.failing import failing_plainly
from resources.storage import StorageResource

# Metadata that distinguishes the result for all partitions of a step from those of single partitions.
PARTITIONS = "partitions"


@dataclass(frozen=True)
class Verdict:
    """Verdict of a check on a partition.

    Attributes:
        fault: What is wrong; None if nothing is.
        metadata: Metadata of the evaluation in the web UI.
    """

    fault: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)


def partition_checks(lineage: Lineage) -> list[dg.AssetChecksDefinition]:
    """Return the checks of every partitioned table, one step per table."""
    tables = [node.key for node in lineage if node.partitioned]
    descriptions = {key: {name: CHECK[name].__doc__ for name in CHECKS[key.name]} for key in tables}
    return [
        partition_check_step(lineage, key, "checks", descriptions[key], partial(_verdicts, key), blocking=True)
        for key in tables
    ]


def _verdicts(key: TableKey, store: Store, partition: str) -> dict[str, Verdict]:
    return {name: Verdict(fault) for name, fault in validate(store, key, partition).items()}


def partition_check_step(
    lineage: Lineage,
    key: TableKey,
    suffix: str,
    descriptions: Mapping[str, str | None],
    verdicts_of: Callable[[Store, str], Mapping[str, Verdict]],
    *,
    blocking: bool,
) -> dg.AssetChecksDefinition:
    """Return the checks of a table's partitions, in any subset; all of them are one step.

    Args:
        lineage: Lineage of the study.
        key: Key of the checked table.
        suffix: Last part of the step's name.
        descriptions: Description of each check, by name.
        verdicts_of: Function that returns the verdict of each check on a partition.
        blocking: Whether a fault is an error that blocks downstream assets, instead of a warning.
    """

    @dg.multi_asset_check(
        name="__".join([*key.parts, suffix]),
        specs=[
            dg.AssetCheckSpec(
                name,
                asset=asset_key(key),
                description=description,
                blocking=blocking,
                partitions_def=query_ranges(lineage.study),
            )
            for name, description in descriptions.items()
        ],
        can_subset=True,
    )
    def checks(
        context: dg.AssetCheckExecutionContext, storage: StorageResource
    ) -> Iterator[dg.AssetCheckEvaluation | dg.AssetCheckResult]:
        store = storage.store(lineage.study)
        with failing_plainly():
            verdicts = {each: verdicts_of(store, each) for each in context.op_execution_context.partition_keys}
        yield from _evaluations(context, asset_key(key), verdicts, blocking=blocking)

    return checks


def _evaluations(
    context: dg.AssetCheckExecutionContext,
    asset: dg.AssetKey,
    verdicts: Mapping[str, Mapping[str, Verdict]],
    *,
    blocking: bool,
) -> Iterator[dg.AssetCheckEvaluation | dg.AssetCheckResult]:
    """Yield the results of a step that checks partitions of an asset.

    Args:
        context: Context of the step.
        asset: Key of the checked asset.
        verdicts: Verdicts by partition and check, for at least the checks selected in the step.
        blocking: Whether a fault is an error that blocks downstream assets, instead of a warning.
    """
    severity = dg.AssetCheckSeverity.ERROR if blocking else dg.AssetCheckSeverity.WARN
    step = context.op_execution_context
    names = [check.name for check in sorted(context.selected_asset_check_keys)]
    if not step.has_partition_key:  # a run over a range, possibly of a single partition
        yield from _by_partition(step.instance, asset, names, verdicts, severity, blocking=blocking)
    for name in names:
        said = {partition: verdict[name] for partition, verdict in verdicts.items()}
        found = {partition: verdict.fault for partition, verdict in said.items() if verdict.fault}
        own = next(iter(said.values())).metadata if len(said) == 1 else {}
        yield dg.AssetCheckResult(
            asset_key=asset,
            check_name=name,
            passed=not found,
            severity=severity,
            description="; ".join(f"{partition}: {fault}" for partition, fault in found.items()) or None,
            metadata={PARTITIONS: ", ".join(verdicts), **own},
        )


def _by_partition(
    instance: dg.DagsterInstance,
    asset: dg.AssetKey,
    names: list[str],
    verdicts: Mapping[str, Mapping[str, Verdict]],
    severity: dg.AssetCheckSeverity,
    *,
    blocking: bool,
) -> Iterator[dg.AssetCheckEvaluation]:
    """Yield one evaluation per partition: in a range run, Dagster 1.13 records only one, without a partition."""
    for partition, verdict in verdicts.items():
        target = _latest_materialization(instance, asset, partition)
        for name in names:
            yield dg.AssetCheckEvaluation(
                asset,
                name,
                passed=verdict[name].fault is None,
                description=verdict[name].fault,
                metadata=verdict[name].metadata,
                severity=severity,
                target_materialization_data=target,
                blocking=blocking,
                partition=partition,
            )


def _latest_materialization(
    instance: dg.DagsterInstance, asset: dg.AssetKey, partition: str
) -> TargetMaterialization | None:
    """Return the partition's latest materialization; the web UI hides evaluations that do not target it."""
    found = instance.fetch_materializations(dg.AssetRecordsFilter(asset, asset_partitions=[partition]), limit=1)
    if not found.records:
        return None
    latest = found.records[0]
    return TargetMaterialization(storage_id=latest.storage_id, run_id=latest.run_id, timestamp=latest.timestamp)
