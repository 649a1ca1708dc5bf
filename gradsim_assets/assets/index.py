"""The gradient index of a study: the originals' projected gradients, computed by partition jobs."""

from collections.abc import Iterator

import dagster as dg

from gradsim.study import Study
from gradsim.tables import Lineage
from gradsim.tables.index import IndexFile
from gradsim.tables.lineage import INDEX
from gradsim_assets.asset_specs import table_spec
from gradsim_assets.assets.gradients import JobConfig, measured_metadata, run_job
from gradsim_assets.dispatch import Dispatch
from gradsim_assets.io_manager import stored_metadata
from gradsim_assets.keys import asset_key
from resources.compute import ComputeResource
from resources.gpu import GPUResource
from resources.storage import StorageResource


def index_assets(study: Study, dispatch: Dispatch) -> list[dg.AssetsDefinition]:
    """Return the asset `gradient_index` if the study stores projected gradients, else nothing."""
    return [_gradient_index(study, dispatch)] if study.stored_projection else []


def _gradient_index(study: Study, dispatch: Dispatch) -> dg.AssetsDefinition:
    lineage = Lineage(study)
    key = lineage.key(INDEX)

    @dg.multi_asset(
        name="__".join(key.parts),
        specs=[table_spec(lineage, key, kinds={"torch", "arrow"})],
        backfill_policy=dispatch.backfill_policy,
        pool=dispatch.pool,
    )
    def gradient_index(
        context: dg.AssetExecutionContext,
        config: JobConfig,
        storage: StorageResource,
        gpu: GPUResource,
        compute: ComputeResource,
    ) -> Iterator[dg.MaterializeResult[None]]:
        store = storage.store(study)
        result = run_job(context, store, [key], context.partition_keys, config, gpu, compute)
        for partition in context.partition_keys:
            path = store.path(key, partition)
            with IndexFile(path) as file:
                shown = {
                    **stored_metadata(store, key, partition),
                    "projection": file.header.projection,
                    "dimensions": file.header.layout.width,
                    "bytes": path.stat().st_size,
                }
            context.add_asset_metadata(shown, asset_key(key), partition)
        yield dg.MaterializeResult(asset_key=asset_key(key), metadata=measured_metadata(result))

    return gradient_index
