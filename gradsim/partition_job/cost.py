"""Measured and predicted cost of a gradient job."""

import torch

from gradsim.gradients import ComparisonTiles
from gradsim.gradients.capture.precision import precision_of
from gradsim.partition_job.job import PartitionJob
from gradsim.tables import Store
from gradsim.tables.rates import read_rates


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
