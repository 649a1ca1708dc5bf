"""Gradient assets, all computed by one partition job per run, and the functions that run partition jobs."""

from collections.abc import Iterator, Sequence
from typing import Any

import dagster as dg

from gradsim.partition_job import JobResult, PartitionJob
from gradsim.study import HubModel, ModelConfiguration
from gradsim.tables import Lineage, Store, TableKey
from gradsim.tables.lineage import GRADIENT_TABLES, INDEX, MODEL
from gradsim_assets.abandoned import process_tags
from gradsim_assets.asset_specs import table_asset, table_spec
from gradsim_assets.dispatch import Dispatch
from gradsim_assets.io_manager import stored_metadata, version_of
from gradsim_assets.keys import asset_key, gradients_op, query_method, table_key
from resources.compute import ComputeResource
from resources.failing import failing_plainly
from resources.storage import StorageResource


class JobConfig(dg.Config):
    """Options of a step that runs a partition job.

    Attributes:
        force: Recompute partitions that are already fresh.
    """

    force: bool = False


def gradient_assets(lineage: Lineage, dispatch: Dispatch) -> dg.AssetsDefinition:
    """Return the asset of all settings' dots, self dots, similarities and projected tables, in any subset.

    All of them are one step, so that tables requested together form one job, which runs originals shared by several
    settings only once.
    """
    study = lineage.study
    keys = [lineage.key(table, setting) for setting, _ in study.ordered_settings() for table in GRADIENT_TABLES]

    @dg.multi_asset(
        name=gradients_op(study),
        specs=[table_spec(lineage, key, kinds={"torch", "parquet"}) for key in keys],
        can_subset=True,
        backfill_policy=dispatch.backfill_policy,
        pool=dispatch.pool,
    )
    def gradients(
        context: dg.AssetExecutionContext, config: JobConfig, storage: StorageResource, compute: ComputeResource
    ) -> Iterator[dg.MaterializeResult[None]]:
        selected = {table_key(key) for key in context.selected_asset_keys}
        asked = [key for key in keys if key in selected]
        yield from compute_tables(context, storage.store(study), asked, config, compute)

    return gradients


def index_assets(lineage: Lineage, dispatch: Dispatch) -> list[dg.AssetsDefinition]:
    """Return the asset `gradient_index`, the originals' projected gradients, if the study stores them."""
    key = lineage.key(INDEX)
    return [job_asset(lineage, key, {"torch", "arrow"}, dispatch)] if lineage.study.stored_projection else []


def job_asset(lineage: Lineage, key: TableKey, kinds: set[str], dispatch: Dispatch) -> dg.AssetsDefinition:
    """Return the asset of a partitioned table that a partition job of its own computes."""

    @table_asset(lineage, key, kinds=kinds, dispatch=dispatch, runs_job=True)
    def table(
        context: dg.AssetExecutionContext, config: JobConfig, storage: StorageResource, compute: ComputeResource
    ) -> dg.MaterializeResult[None]:
        return next(compute_tables(context, storage.store(lineage.study), [key], config, compute))

    return table


def compute_tables(
    context: dg.AssetExecutionContext,
    store: Store,
    keys: Sequence[TableKey],
    config: JobConfig,
    compute: ComputeResource,
) -> Iterator[dg.MaterializeResult[None]]:
    """Run one partition job for these tables and the step's partitions, and yield each table's result."""
    partitions = context.partition_keys
    with failing_plainly():
        result = run_job(context, store, keys, partitions, config, compute)
    for key in keys:
        for partition in partitions:
            context.add_asset_metadata(stored_metadata(store, key, partition), asset_key(key), partition)
        yield dg.MaterializeResult(
            asset_key=asset_key(key), metadata=_cost(result, key), data_version=version_of(store, key)
        )


def run_job(
    context: dg.AssetExecutionContext,
    store: Store,
    keys: Sequence[TableKey],
    partitions: Sequence[str | None],
    config: JobConfig,
    compute: ComputeResource,
) -> JobResult:
    """Run one partition job for these tables and partitions, and return its result."""
    # Allows `fail_abandoned_runs` to detect that the run's process died, even during hours of waiting.
    context.instance.add_run_tags(context.run.run_id, process_tags(context.run.run_id))
    job = make_job(store, keys, partitions, compute, force=config.force)
    return compute.run(context, job.of_what_is_stored(store))


def make_job(
    store: Store, keys: Sequence[TableKey], partitions: Sequence[str | None], compute: ComputeResource, *, force: bool
) -> PartitionJob:
    """Return the partition job for these tables and partitions.

    Raises:
        TableError: The study has no `model` table yet.
    """
    return PartitionJob(
        study=store.study,
        keys=tuple(keys),
        partitions=tuple(partitions),
        fingerprints={str(key): store.lineage.fingerprint(key) for key in keys},
        digests=store.lineage.named_files(),
        root=store.root,
        model=_job_model(store, keys[0], compute.device),
        memory_budget=compute.memory_budget,
        force=force,
    )


def _job_model(store: Store, key: TableKey, device: str) -> ModelConfiguration:
    """Return the model of a table's job: the one to train, another one that makes queries, or the studied one."""
    study = store.study
    if key.name == MODEL:
        if isinstance(study.model, HubModel):
            return study.start_configuration(device)
        return study.model_configuration(None, store.model_folder, device)
    method = query_method(study, key)
    other = method.model_configuration(device) if method else None
    return other or store.model_configuration(device)


def _cost(result: JobResult, key: TableKey) -> dict[str, Any]:
    """Return metadata: how many of a table's partitions the job computed, and the job's measurements."""
    computed = len(result.computed.get(str(key), []))
    counts = {"partitions_computed": computed, "partitions_already_fresh": len(result.partitions) - computed}
    return {**counts, **measured_metadata(result)} if computed else counts


def measured_metadata(result: JobResult) -> dict[str, Any]:
    """Return a job's measurements as metadata."""
    return {name: value for name, value in result.measured.items() if isinstance(value, int | float | str)}
