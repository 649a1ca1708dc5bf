"""The gradient tables of partitions: one pass over the samples, rows written as soon as they are complete."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing

from gradsim.errors import ModelError, StudyError
from gradsim.gradients import ComparisonTiles, Projector, compare_tiles
from gradsim.models import load_model, resolve_device
from gradsim.partition_job.cost import measured_cost
from gradsim.partition_job.gathering import Gathered
from gradsim.partition_job.inputs import JobInputs, read_inputs
from gradsim.partition_job.job import PartitionJob
from gradsim.partition_job.partition_tables import PartitionTables, Projected
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
    projections = [Projected(each.kind, sum(each.layer_dimensions(elements).values())) for each in projectors]
    layers = store.layers.categories.to_list()
    with ExitStack() as lent:
        tiles = None
        if len(inputs.pairs):  # else every query was excluded, and the tables are empty
            tiles = lent.enter_context(closing(_tiles(job, store, inputs, projectors, progress)))
        gathered = Gathered(
            tiles or iter(()),
            inputs,
            [projector.name for projector in projectors],
            len(layers),
            with_layers="dot_products" in wanted,
        )
        for partition in inputs.partitions:
            rows = PartitionTables(inputs, gathered, partition, layers, projections)
            _write(job, store, partition.key, work[partition.key], rows, provenance)
    return measured_cost(tiles, job, store, device, elements) if tiles else {}


def _write(
    job: PartitionJob,
    store: Store,
    partition: str,
    tables: Sequence[str],
    rows: PartitionTables,
    provenance: Provenance,
) -> None:
    """Write a partition's tables, that of the dots while they come."""
    if "dot_products" in tables:
        with store.writer(job.key("dot_products"), partition, provenance) as writer:
            for dots in rows.dot_products():
                writer.add(dots)
            writer.provenance = writer.provenance.model_copy(update={"excluded": rows.excluded})
    others = rows.others()
    known = provenance.model_copy(update={"excluded": rows.excluded})
    for table in tables:
        if table != "dot_products":
            store.write(job.key(table), others.get(table, SCHEMAS[table].empty()), partition, known)


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
