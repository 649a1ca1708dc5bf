"""Gradient assets, all computed by one partition job per run, and the functions that run partition jobs."""

from collections.abc import Iterator, Sequence
from typing import Any

import dagster as dg

from gradsim.partition_job import JobResult, PartitionJob
from gradsim.study import Study
from gradsim.tables import Lineage, Store, TableKey
from gradsim.tables.lineage import GRADIENT_TABLES
from gradsim_assets.abandoned import process_tags
from gradsim_assets.asset_specs import table_spec
from gradsim_assets.dispatch import Dispatch
from gradsim_assets.io_manager import stored_metadata
from gradsim_assets.keys import asset_key, table_key
from gradsim_assets.steps import gradients_op, query_method
from resources.compute import ComputeResource
from resources.gpu import GPUResource
from resources.storage import StorageResource


class JobConfig(dg.Config):
    """Options of a step that runs a partition job.

    Attributes:
        force: Recompute partitions that are already fresh.
    """

    force: bool = False


def gradient_assets(study: Study, dispatch: Dispatch) -> dg.AssetsDefinition:
    """Return the asset of all settings' dots, self dots, similarities and projected tables, in any subset.

    All of them are one step, so that tables requested together form one job, which runs originals shared by several
    settings only once.
    """
    lineage = Lineage(study)
    keys = [lineage.key(table, setting) for setting, _ in study.ordered_settings() for table in GRADIENT_TABLES]

    @dg.multi_asset(
        name=gradients_op(study),
        specs=[table_spec(lineage, key, kinds={"torch", "parquet"}) for key in keys],
        can_subset=True,
        backfill_policy=dispatch.backfill_policy,
        pool=dispatch.pool,
    )
    def gradients(
        context: dg.AssetExecutionContext,
        config: JobConfig,
        storage: StorageResource,
        gpu: GPUResource,
        compute: ComputeResource,
    ) -> Iterator[dg.MaterializeResult[None]]:
        selected = {table_key(key) for key in context.selected_asset_keys}
        asked = [key for key in keys if key in selected]
        yield from compute_tables(context, study, asked, config, storage, gpu, compute)

    return gradients


def compute_tables(
    context: dg.AssetExecutionContext,
    study: Study,
    keys: Sequence[TableKey],
    config: JobConfig,
    storage: StorageResource,
    gpu: GPUResource,
    compute: ComputeResource,
) -> Iterator[dg.MaterializeResult[None]]:
    """Run one partition job for these tables and the step's partitions, and yield each table's result."""
    store = storage.store(study)
    partitions = context.partition_keys
    result = run_job(context, store, keys, partitions, config, gpu, compute)
    for key in keys:
        for partition in partitions:
            context.add_asset_metadata(stored_metadata(store, key, partition), asset_key(key), partition)
        yield dg.MaterializeResult(asset_key=asset_key(key), metadata=_cost(result, key))


def run_job(
    context: dg.AssetExecutionContext,
    store: Store,
    keys: Sequence[TableKey],
    partitions: Sequence[str | None],
    config: JobConfig,
    gpu: GPUResource,
    compute: ComputeResource,
) -> JobResult:
    """Run one partition job for these tables and partitions, and return its result."""
    # Allows `fail_abandoned_runs` to detect that the run's process died, even during hours of waiting.
    context.instance.add_run_tags(context.run.run_id, process_tags(context.run.run_id))
    job = make_job(store, keys, partitions, gpu, force=config.force)
    return compute.run(context, job.of_what_is_stored(store))


def make_job(
    store: Store, keys: Sequence[TableKey], partitions: Sequence[str | None], gpu: GPUResource, *, force: bool
) -> PartitionJob:
    """Return the partition job for these tables and partitions."""
    return PartitionJob(
        study=store.study,
        keys=tuple(keys),
        partitions=tuple(partitions),
        fingerprints={str(key): store.lineage.fingerprint(key) for key in keys},
        digests=store.lineage.named_files(),
        root=store.root,
        model=gpu.configuration(store, query_method(store.study, keys[0])),
        memory_budget=gpu.memory_budget,
        force=force,
    )


def _cost(result: JobResult, key: TableKey) -> dict[str, Any]:
    """Return metadata: how many of a table's partitions the job computed, and the job's measurements."""
    computed = len(result.computed.get(str(key), []))
    return {
        "partitions_computed": computed,
        "partitions_already_fresh": len(result.partitions) - computed,
        **measured_metadata(result),
    }


def measured_metadata(result: JobResult) -> dict[str, Any]:
    """Return a job's measurements as metadata."""
    return {name: value for name, value in result.measured.items() if isinstance(value, int | float | str)}
