"""The audit of a setting, made by a partition job, and its check: stored dots have to agree with plain autograd."""

import math

import dagster as dg

from gradsim import plots
from gradsim.analysis import audit_verdict
from gradsim.tables import Lineage
from gradsim.tables.lineage import AUDIT
from gradsim_assets.asset_specs import table_asset
from gradsim_assets.assets.gradients import JobConfig, measured_metadata, run_job
from gradsim_assets.dispatch import Dispatch
from gradsim_assets.io_manager import materialized
from gradsim_assets.keys import asset_key
from gradsim_assets.preview import preview
from resources.compute import ComputeResource
from resources.failing import failing_plainly
from resources.storage import StorageResource


def audit_asset(lineage: Lineage, setting: str, dispatch: Dispatch) -> dg.AssetsDefinition:
    """Return the asset `gradient_audit` of a setting."""
    study, key = lineage.study, lineage.key(AUDIT, setting, "analysis")

    @table_asset(lineage, key, kinds={"torch", "parquet"}, dispatch=dispatch, runs_job=True)
    def gradient_audit(
        context: dg.AssetExecutionContext, config: JobConfig, storage: StorageResource, compute: ComputeResource
    ) -> dg.MaterializeResult[None]:
        store = storage.store(study)
        result = run_job(context, store, [key], store.partitions(key), config, compute)
        audit = store.read(key)
        verdict = audit_verdict(audit, study.model.precision)
        return materialized(
            store,
            key,
            {
                "numbers_compared": verdict.numbers,
                "worst_error": _shown(verdict.worst),
                "median_error": _shown(verdict.median),
                "worst_at": verdict.where,
                **measured_metadata(result),
                **preview(audit, plots.errors_of_audit(audit, study.model.precision)),
            },
        )

    return gradient_audit


def audit_check(lineage: Lineage, setting: str) -> dg.AssetChecksDefinition:
    """Return the non-blocking check that every audited number is within the tolerance of the study's precision."""
    study, key = lineage.study, lineage.key(AUDIT, setting, "analysis")

    @dg.asset_check(
        name="gradients_agree_with_autograd",
        asset=asset_key(key),
        description="The gradient dot products of a few pairs, including the longest and the most memorised sample, "
        "agree with plain autograd run on one sample at a time.",
    )
    @failing_plainly()
    def gradients_agree_with_autograd(storage: StorageResource) -> dg.AssetCheckResult:
        verdict = audit_verdict(storage.store(study).read(key), study.model.precision)
        return dg.AssetCheckResult(
            passed=verdict.passed,
            severity=dg.AssetCheckSeverity.ERROR,
            description=str(verdict),
            metadata={"numbers_compared": verdict.numbers, "worst_error": _shown(verdict.worst)},
        )

    return gradients_agree_with_autograd


def _shown(error: float) -> float | str:
    """Return an error for the web UI, as text if it is not finite: the UI's GraphQL API does not support NaN."""
    return error if math.isfinite(error) else str(error)
