"""The assets that need the model's gradients, of which one pass makes all that are asked for; and running such jobs."""

from collections.abc import Iterator, Sequence
from typing import Any

import dagster as dg

from gradsim.partition_job import JobResult, PartitionJob
from gradsim.study import GenerateSetting, Study
from gradsim.tables import Lineage, Store, TableKey
from gradsim.tables.lineage import AUDIT, GRADIENT_TABLES, INDEX
from gradsim_assets.abandoned import process_tags
from gradsim_assets.describe import table_spec
from gradsim_assets.dispatch import Dispatch
from gradsim_assets.io_manager import stored_metadata
from gradsim_assets.keys import asset_key, table_key
from resources.compute import ComputeResource
from resources.gpu import GPUResource
from resources.storage import StorageResource


class JobConfig(dg.Config):
    """Options of a step that runs a partition job."""

    force: bool = False


def gradient_assets(study: Study, setting: str, dispatch: Dispatch) -> dg.AssetsDefinition:
    """Dots, self dots, similarities and projected similarities of one setting; any subset can be asked for."""
    lineage = Lineage(study)

    @dg.multi_asset(
        name=gradients_op(study, setting),
        specs=[
            table_spec(lineage, lineage.key(table, setting), kinds={"torch", "parquet"}) for table in GRADIENT_TABLES
        ],
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
        selected = {table_key(key).name for key in context.selected_asset_keys}
        tables = [table for table in GRADIENT_TABLES if table in selected]
        yield from compute_tables(context, study, setting, tables, config, storage, gpu, compute)

    return gradients


def gradients_op(study: Study, setting: str) -> str:
    """Name of the step that makes a setting's gradient tables."""
    return f"{study.name}__{setting}__gradients"


def job_op(study: Study, key: TableKey) -> str | None:
    """Name of the step that makes a table by a partition job; None for a table that needs none."""
    if key.name in GRADIENT_TABLES and key.room is None:
        return gradients_op(study, str(key.setting))
    if key.name in (AUDIT, INDEX):
        return "__".join(key.parts)
    generated = key.name == "queries" and isinstance(study.settings[str(key.setting)], GenerateSetting)
    return "__".join(key.parts) if generated else None


def compute_tables(
    context: dg.AssetExecutionContext,
    study: Study,
    setting: str,
    tables: Sequence[str],
    config: JobConfig,
    storage: StorageResource,
    gpu: GPUResource,
    compute: ComputeResource,
) -> Iterator[dg.MaterializeResult[None]]:
    """Run one partition job for these tables and the step's partitions, and report each table."""
    store = storage.store(study)
    keys = [store.lineage.key(table, setting) for table in tables]
    partitions = context.partition_keys
    result = run_job(context, store, keys, partitions, config, gpu, compute)
    for key in keys:
        for partition in partitions:
            context.add_asset_metadata(stored_metadata(store, key, partition), asset_key(key), partition)
        yield dg.MaterializeResult(asset_key=asset_key(key), metadata=_cost(result, key.name))


def run_job(
    context: dg.AssetExecutionContext,
    store: Store,
    keys: Sequence[TableKey],
    partitions: Sequence[str | None],
    config: JobConfig,
    gpu: GPUResource,
    compute: ComputeResource,
) -> JobResult:
    """Run one partition job for these tables, which lie in one setting and room, and these partitions of theirs."""
    # A run that waits for hours must be known to be dead when its process is.
    context.instance.add_run_tags(context.run_id, process_tags(context.run_id))
    job = make_job(store, keys, partitions, gpu, force=config.force)
    return compute.run(context, job.of_what_is_stored(store))


def make_job(
    store: Store, keys: Sequence[TableKey], partitions: Sequence[str | None], gpu: GPUResource, *, force: bool
) -> PartitionJob:
    """The job of these tables, which lie in one setting and room, and these partitions of theirs."""
    return PartitionJob(
        study=store.study,
        setting=keys[0].setting,
        room=keys[0].room,
        partitions=tuple(partitions),
        tables=tuple(key.name for key in keys),
        fingerprints={key.name: store.lineage.fingerprint(key) for key in keys},
        digests=store.lineage.named_files(),
        root=store.root,
        model=gpu.configuration(store.study, store),
        memory_budget=gpu.memory_budget,
        force=force,
    )


def _cost(result: JobResult, table: str) -> dict[str, Any]:
    """How much of a table this job computed, and what the job cost."""
    computed = len(result.computed.get(table, []))
    return {
        "partitions_computed": computed,
        "partitions_already_fresh": len(result.partitions) - computed,
        **measured_metadata(result),
    }


def measured_metadata(result: JobResult) -> dict[str, Any]:
    """What a job cost."""
    return {name: value for name, value in result.measured.items() if isinstance(value, int | float | str)}
