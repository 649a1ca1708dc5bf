"""Measurement of a device's rates on a study's own samples."""

from typing import Any

import polars as pl

from gradsim.gradients.calibration import measure_rates
from gradsim.gradients.capture.memory import default_budget
from gradsim.models import device_name, load_model, studied_layers
from gradsim.partition_job.inputs import sequences
from gradsim.partition_job.job import PartitionJob, Work
from gradsim.partition_job.study_projections import study_projectors
from gradsim.progress import Progress
from gradsim.study import ModelConfiguration, Study
from gradsim.tables import Store


def compute_rates(job: PartitionJob, store: Store, work: Work, progress: Progress) -> dict[str, Any]:
    """Measure rates on a few of the study's originals, see `measured_rates`.

    Raises:
        GradsimError: an error that the user can fix.
    """
    tokenized = store.read(store.lineage.key("tokenized"))
    return measured_rates(job.study, job.model, tokenized, job.memory_budget)


def measured_rates(
    study: Study, configuration: ModelConfiguration, tokenized: pl.DataFrame, memory_budget: int | None
) -> dict[str, Any]:
    """Load a study's model, and return rates measured on a few of its originals.

    Returns:
        The rates, the name of the device, and the memory budget of a job besides the model in bytes.

    Raises:
        GradsimError: an error that the user can fix.
    """
    samples = sequences(tokenized)
    model = load_model(configuration)
    budget = memory_budget or default_budget(model.device)
    rates = measure_rates(
        model,
        samples,
        layers=studied_layers(model, study.layers),
        partners=len(samples) if study.top_k == "all" else study.top_k,
        precision=configuration.precision,
        projectors=study_projectors(study),
        memory_budget=memory_budget,
    )
    return {
        "device": device_name(str(model.device)),
        "operations_per_second": rates.operations_per_second,
        "bytes_per_second": rates.bytes_per_second,
        "memory_budget": budget,
    }
