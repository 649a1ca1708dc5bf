"""Verdicts of asset checks on partitions, and their conversion to Dagster's evaluations."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import dagster as dg
from dagster._core.definitions.asset_checks.asset_check_evaluation import (
    AssetCheckEvaluationTargetMaterializationData as TargetMaterialization,
)

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


def evaluations(
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
