"""The gradient tables of partitions: one pass over the samples, each partition written as soon as it is complete."""

from collections import deque
from collections.abc import Callable, Mapping, Sequence

from gradsim.errors import ModelError, StudyError
from gradsim.gradients import ComparisonTiles, Projector, compare_tiles
from gradsim.models import load_model, resolve_device
from gradsim.partition_job.cost import measured_cost
from gradsim.partition_job.gathering import Gathered
from gradsim.partition_job.inputs import JobInputs, PartitionSlice, read_inputs
from gradsim.partition_job.job import PartitionJob
from gradsim.partition_job.provenance import model_provenance
from gradsim.study import Study
from gradsim.tables import SCHEMAS, Provenance, Store


def compute(
    job: PartitionJob,
    store: Store,
    work: Mapping[str, Sequence[str]],
    progress: Callable[[int, int], None],
) -> dict[str, float]:
    """Compute and write `work`: partition -> tables.

    Returns:
        What the pass cost, and what had been predicted.

    Raises:
        GradsimError: whatever a user can mend.
    """
    device = resolve_device(job.model.device)
    provenance = model_provenance(job, store, device)
    inputs = read_inputs(job, store, list(work))
    wanted = {table for tables in work.values() for table in tables}
    elements = _elements(store)
    projectors = study_projectors(job.study, elements) if "projected_similarity" in wanted else []
    gathered = Gathered(inputs, store.layers.categories.to_list(), projectors, elements)
    waiting = deque(inputs.partitions)
    measured: dict[str, float] = {}
    if len(inputs.pairs):
        tiles = _tiles(job, store, inputs, projectors, progress)
        for tile in tiles:
            gathered.add(tile)
            while waiting and waiting[0].queries.stop <= tile.queries_done:
                _write(job, store, waiting.popleft(), work, gathered, provenance)
        measured = measured_cost(tiles, job, store, device, elements)
    for partition in waiting:  # those without a query: every one of them was excluded
        _write(job, store, partition, work, gathered, provenance)
    return measured


def _tiles(
    job: PartitionJob,
    store: Store,
    inputs: JobInputs,
    projectors: Sequence[Projector],
    progress: Callable[[int, int], None],
) -> ComparisonTiles:
    tiles = compare_tiles(
        load_model(job.model),
        inputs.queries,
        inputs.originals,
        inputs.pairs,
        precision=job.model.precision,
        memory_budget=job.memory_budget,
        projectors=projectors,
        progress=progress,
        on_bad_sample=job.study.on_bad_sample,
    )
    _check_layers(tiles.layers, store)
    return tiles


def study_projectors(study: Study, elements: Mapping[str, int]) -> list[Projector]:
    """The study's projections as the engine wants them.

    Raises:
        StudyError: two of them are the same for this model, whose layers are too small to tell them apart.
    """
    projectors = [
        Projector(projection.kind, projection.share, study.seed, projection.name) for projection in study.projections
    ]
    names: dict[tuple[str, int], str] = {}
    for projector in projectors:
        total = sum(projector.layer_dimensions(elements).values())
        if (first := names.setdefault((projector.kind, total), projector.name)) != projector.name:
            raise StudyError(
                f"projections: {first} and {projector.name} both have {total} dimensions for this model; remove one"
            )
    return projectors


def _elements(store: Store) -> dict[str, int]:
    model = store.read(store.lineage.key("model"))
    return dict(model.select("layer", "parameters").iter_rows())


def _check_layers(layers: Sequence[str], store: Store) -> None:
    """The model that was loaded must be the one that the study's tables were begun with."""
    if list(layers) != store.layers.categories.to_list():
        raise ModelError(
            f"{store.path(store.lineage.key('model'))}: names other layers than the model that was loaded; "
            "make the study's `model` table again"
        )


def _write(
    job: PartitionJob,
    store: Store,
    partition: PartitionSlice,
    work: Mapping[str, Sequence[str]],
    gathered: Gathered,
    provenance: Provenance,
) -> None:
    complete = gathered.partition(partition)
    for table in work[partition.key]:
        rows = complete.tables.get(table, SCHEMAS[table].empty())
        known = provenance.model_copy(update={"excluded": complete.excluded})
        store.write(job.key(table), rows, partition.key, known)
