"""Gradient tables of partitions, computed in one comparison and written as rows become complete."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing

import numpy as np
import torch
from transformers import PreTrainedModel

from gradsim.errors import ModelError
from gradsim.gradients import ComparisonTiles, Projector, Tile, compare_tiles
from gradsim.gradients.capture.precision import precision_of
from gradsim.models import load_model, resolve_device, studied_layers
from gradsim.partition_job.gathering import Gathered, Method
from gradsim.partition_job.inputs import JobInputs, read_inputs
from gradsim.partition_job.job import PartitionJob, Work, model_provenance
from gradsim.partition_job.partition_tables import STREAMED, PartitionTables
from gradsim.partition_job.study_projections import SizedProjection, layer_shapes, study_projections, study_projectors
from gradsim.partition_job.summed_loss import of_summed_loss
from gradsim.progress import Progress
from gradsim.tables import SCHEMAS, Provenance, Store, TableKey
from gradsim.tables.lineage import PROJECTED_TABLES
from gradsim.tables.rates import read_rates


def compute_gradients(job: PartitionJob, store: Store, work: Work, progress: Progress) -> dict[str, float]:
    """Compute and write the tables in `work`, of one setting or of several that share originals.

    Returns:
        Measured and predicted cost, see `measured_cost`.

    Raises:
        GradsimError: an error that the user can fix.
    """
    device = resolve_device(job.model.device)
    provenance = model_provenance(job, store, device)
    parts = [
        (setting, partition)
        for setting in job.settings
        for partition, keys in work.items()
        if any(key.setting == setting for key in keys)
    ]
    inputs = read_inputs(store, parts)
    wanted = {key.name for keys in work.values() for key in keys}
    shapes = layer_shapes(store.read(store.lineage.layers_key))
    projected = not wanted.isdisjoint(PROJECTED_TABLES)
    projections = study_projections(job.study, shapes) if projected else []
    projectors = study_projectors(job.study) if projected else []
    names = [projector.name for projector in projectors]
    with ExitStack() as lent:
        tiles = None
        if len(inputs.pairs):  # otherwise all queries were excluded, and the tables are empty
            tiles = lent.enter_context(closing(_tiles(job, store, inputs, projectors, progress)))
        found: Iterator[Tile] = tiles or iter(())
        gathered = Gathered(
            of_summed_loss(found, inputs) if job.study.chat.loss == "sum" else found,
            inputs,
            names,
            [Method(), *map(_method, projections)],
            len(shapes),
            with_dots="dot_products" in wanted,
            with_projected="projected_dots" in wanted,
        )
        for part in inputs.partitions:
            rows = PartitionTables(inputs, gathered, part, list(shapes), names, projections)
            keys = [key for key in work[part.key] if key.setting == part.setting]
            _write(store, part.key, keys, rows, provenance, tiles)
    return measured_cost(tiles, job, store, device) if tiles else {}


def _method(projection: SizedProjection) -> Method:
    """Return the similarity of a projection; `as_published` scaling weights each layer by its dimensions."""
    weights = None
    if projection.definition.scaling == "as_published":
        weights = np.array(list(projection.dimensions.values()), dtype=np.float64)
    return Method(projection.definition.name, weights)


def _write(
    store: Store,
    partition: str,
    keys: Sequence[TableKey],
    rows: PartitionTables,
    provenance: Provenance,
    tiles: ComparisonTiles | None,
) -> None:
    """Write a partition's tables; stream the large ones."""
    with ExitStack() as open_files:
        writers = {
            key.name: open_files.enter_context(store.writer(key, partition, provenance))
            for key in keys
            if key.name in STREAMED
        }
        for frames in rows.streamed():
            for table, writer in writers.items():
                writer.add(frames[table])
        for writer in writers.values():
            writer.provenance = writer.provenance.model_copy(update={"excluded": rows.excluded})
    others = rows.others(tiles.noise if tiles else ())
    known = provenance.model_copy(update={"excluded": rows.excluded})
    for key in keys:
        if key.name not in STREAMED:
            store.write(key, others.get(key.name, SCHEMAS[key.name].empty()), partition, known)


def _tiles(
    job: PartitionJob, store: Store, inputs: JobInputs, projectors: Sequence[Projector], progress: Progress
) -> ComparisonTiles:
    model = load_model(job.model)
    _check_layers(model, store)
    return compare_tiles(
        model,
        inputs.queries,
        inputs.originals,
        inputs.pairs,
        layers=store.layer_names,
        precision=job.model.precision,
        memory_budget=job.memory_budget,
        projectors=projectors,
        progress=progress,
        on_bad_sample=job.study.on_bad_sample,
        precision_of_memorised=job.study.model.precision_of_memorised,
    )


def _check_layers(model: PreTrainedModel, store: Store) -> None:
    """Raise a ModelError if the loaded model's layers differ from the study's `model` table."""
    key = store.lineage.key("model")
    if list(studied_layers(model)) != store.read(key)["layer"].to_list():
        raise ModelError(
            f"{store.path(key)}: layers differ from those of the loaded model; recompute the study's `model` table"
        )


def measured_cost(tiles: ComparisonTiles, job: PartitionJob, store: Store, device: str) -> dict[str, float]:
    """Return the measured cost of a finished comparison, with predictions as `X_predicted` beside `X`.

    Time is predicted only if rates were measured. GPU memory is that of torch's tensors. On a CPU, only the memory of
    the whole process is measured (`peak_memory_bytes`), which includes libraries and tables.

    Args:
        tiles: exhausted tiles.
        job: the job.
        store: store of the job's study.
        device: cpu or cuda:N.
    """
    plan = tiles.plan
    assert plan is not None
    parameters = sum(store.read(store.lineage.key("model"))["parameters"])
    weights = parameters * precision_of(job.model.precision).dtype.itemsize
    measured: dict[str, float] = {
        "passes": tiles.passes,
        "passes_predicted": plan.passes,
        "operations_predicted": plan.cost.operations,
        "operations_per_second": plan.cost.operations / tiles.seconds,
        "gradient_bytes": tiles.peak_bytes,
        "gradient_bytes_predicted": plan.peak_bytes,
        "working_bytes_predicted": plan.working_bytes,
        "device_memory_bytes_predicted": weights + plan.peak_bytes + plan.working_bytes,
        "pass_seconds": round(tiles.seconds, 3),
        "check_seconds": round(tiles.check_seconds, 3),
        "memory_retries": tiles.memory_retries,
        "memorised": tiles.memorised,
        "checkpoint": plan.checkpoint,
    }
    if device.startswith("cuda"):
        measured["device_memory_bytes"] = torch.cuda.max_memory_allocated(device)
    if known := read_rates(store, device, job.model.precision):
        measured["pass_seconds_predicted"] = round(known.rates.seconds(plan), 3)
    return measured
