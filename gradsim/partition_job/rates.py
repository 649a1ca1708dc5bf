"""Measurement of a node's rates on a study's own samples."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from gradsim.gradients.calibration import measure_rates
from gradsim.gradients.capture.memory import default_budget
from gradsim.models import device_name, load_model, resolve_device
from gradsim.partition_job.inputs import sequences
from gradsim.partition_job.job import PartitionJob
from gradsim.partition_job.study_projections import study_projectors
from gradsim.tables import Store, TableKey


def compute_rates(
    job: PartitionJob,
    store: Store,
    work: Mapping[str, Sequence[TableKey]],
    progress: Callable[[int, int], None],
) -> dict[str, Any]:
    """Measure rates on a few of the study's originals.

    Returns:
        The rates, the name of the device, and the memory budget of a job besides the model in bytes.

    Raises:
        GradsimError: an error that the user can fix.
    """
    samples = sequences(store.read(store.lineage.key("tokenized")))
    model = load_model(job.model)
    budget = job.memory_budget or default_budget(model.device)
    rates = measure_rates(
        model,
        samples,
        layers=store.layer_names,
        partners=len(samples) if job.study.top_k == "all" else job.study.top_k,
        precision=job.model.precision,
        projectors=study_projectors(job.study),
        memory_budget=job.memory_budget,
    )
    return {
        "device": device_name(resolve_device(job.model.device)),
        "operations_per_second": rates.operations_per_second,
        "bytes_per_second": rates.bytes_per_second,
        "memory_budget": budget,
    }
