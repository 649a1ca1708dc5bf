"""The assets that need the model's gradients: one pass of a partition job makes all that are asked for."""

from collections.abc import Iterator, Sequence
from typing import Any

import dagster as dg

from gradsim.partition_job import JobResult, PartitionJob
from gradsim.study import Study
from gradsim.tables import Lineage
from gradsim.tables.lineage import GRADIENT_TABLES
from gradsim_assets.describe import table_spec
from gradsim_assets.io_manager import stored_metadata
from gradsim_assets.keys import asset_key, table_key
from resources.compute import ComputeResource
from resources.gpu import GPUResource
from resources.storage import StorageResource


class JobConfig(dg.Config):
    """Options of a step that runs a partition job."""

    force: bool = False


def gradient_assets(study: Study, setting: str) -> dg.AssetsDefinition:
    """Dots, self dots, similarities and projected similarities of one setting; any subset can be asked for."""
    lineage = Lineage(study)

    @dg.multi_asset(
        name=gradients_op(study, setting),
        specs=[
            table_spec(lineage, lineage.key(table, setting), kinds={"torch", "parquet"}) for table in GRADIENT_TABLES
        ],
        can_subset=True,
        backfill_policy=dg.BackfillPolicy.single_run(),
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
    keys = {table: store.lineage.key(table, setting) for table in tables}
    job = PartitionJob(
        study=study,
        setting=setting,
        partitions=tuple(context.partition_keys),
        tables=tuple(tables),
        fingerprints={table: store.lineage.fingerprint(key) for table, key in keys.items()},
        root=store.root,
        model=gpu.configuration(study, store),
        memory_budget=gpu.memory_budget,
        force=config.force,
    )
    result = compute.run(context, job)
    for table, key in keys.items():
        for partition in job.partitions:
            context.add_asset_metadata(stored_metadata(store, key, partition), asset_key(key), partition)
        yield dg.MaterializeResult(asset_key=asset_key(key), metadata=_cost(result, table))


def _cost(result: JobResult, table: str) -> dict[str, Any]:
    """How much of a table this job computed, and what the job cost."""
    computed = [partition for partition, tables in result.computed.items() if table in tables]
    return {
        "partitions_computed": len(computed),
        "partitions_already_fresh": len(result.partitions) - len(computed),
        **{name: value for name, value in result.measured.items() if isinstance(value, int | float | str)},
    }
