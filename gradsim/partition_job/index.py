"""Gradient index: projected gradients of the originals, streamed to one file per partition."""

from contextlib import closing

import polars as pl

from gradsim.gradients.vectors import projected_gradients
from gradsim.models import load_model, resolve_device
from gradsim.partition_job.inputs import sequences
from gradsim.partition_job.job import PartitionJob, Work, model_provenance
from gradsim.partition_job.study_projections import layer_shapes, projector_of
from gradsim.partition_job.summed_loss import label_counts
from gradsim.progress import Progress
from gradsim.tables import Store
from gradsim.tables.index import IndexHeader
from gradsim.tables.provenance import ORIGINAL_LOSS


def compute_index(job: PartitionJob, store: Store, work: Work, progress: Progress) -> dict[str, float]:
    """Compute and write the partitions of the index in `work`.

    Returns:
        The number of passes.

    Raises:
        GradsimError: an error that the user can fix.
    """
    stored = job.study.stored_projection
    assert stored is not None
    provenance = model_provenance(job, store, resolve_device(job.model.device))
    tokenized = store.read(store.lineage.key("tokenized"))
    parts = {partition: sequences(tokenized.filter(pl.col("id").is_in(store.ids_of(partition)))) for partition in work}
    projector = projector_of(stored, job.study)
    header = IndexHeader(
        projection=stored.name,
        dimensions=projector.layer_dimensions(layer_shapes(store.read(store.lineage.layers_key))),
        stored_format=stored.stored_format,
    )
    samples = [sample for part in parts.values() for sample in part]
    vectors = projected_gradients(
        load_model(job.model),
        samples,
        projector,
        layers=store.layer_names,
        precision=job.model.precision,
        memory_budget=job.memory_budget,
        progress=progress,
        on_bad_sample=job.study.on_bad_sample,
    )
    with closing(vectors):
        factors = label_counts(samples).tolist() if job.study.chat.loss == "sum" else [1.0] * len(samples)
        found = ((samples[position].id, vector * factors[position]) for position, vector in vectors)
        waiting = next(found, None)
        for partition, part in parts.items():
            excluded = {sample.id: ORIGINAL_LOSS for sample in part}
            with store.index_writer(partition, header, provenance) as writer:
                while waiting and waiting[0] in excluded:
                    writer.add(*waiting)
                    del excluded[waiting[0]]
                    waiting = next(found, None)
                writer.provenance = writer.provenance.model_copy(update={"excluded": excluded})
    return {"passes": len(samples)}
