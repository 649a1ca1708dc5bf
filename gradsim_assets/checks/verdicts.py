"""What asset checks say of partitions, as Dagster wants to hear it."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import dagster as dg
from dagster._core.definitions.asset_checks.asset_check_evaluation import (
    AssetCheckEvaluationTargetMaterializationData as TargetMaterialization,
)

# Metadata by which the result for all partitions of a step is told from those of single ones.
PARTITIONS = "partitions"


@dataclass(frozen=True)
class Verdict:
    """What a check says of a partition.

    Attributes:
        fault: what is wrong; None: nothing.
        metadata: what the web UI shows beside it.
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
    """The results of a step that checks partitions of an asset.

    Args:
        context: of the step.
        asset: that is checked.
        verdicts: partition -> check -> what it says; of all checks that the step was asked for, at least.
        blocking: whether a fault stops what lies downstream; otherwise it is a warning.
    """
    severity = dg.AssetCheckSeverity.ERROR if blocking else dg.AssetCheckSeverity.WARN
    step = context.op_execution_context
    names = [check.name for check in sorted(context.selected_asset_check_keys)]
    if not step.has_partition_key:  # a run over a range, which may also be of one partition
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
    """One evaluation a partition: in a run over a range, Dagster 1.13 would record a single one, of none of them."""
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
    """What an evaluation is of; the web UI shows none that does not name the partition's latest materialization."""
    found = instance.fetch_materializations(dg.AssetRecordsFilter(asset, asset_partitions=[partition]), limit=1)
    if not found.records:
        return None
    latest = found.records[0]
    return TargetMaterialization(storage_id=latest.storage_id, run_id=latest.run_id, timestamp=latest.timestamp)
