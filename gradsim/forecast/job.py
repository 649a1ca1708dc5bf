"""Predict the seconds that a gradient job takes: `python -m gradsim.forecast.job < QUESTION.json`.

The prediction runs in a separate process, so that a caller that then waits for the job does not keep torch in memory.
"""

import subprocess
import sys

from pydantic import BaseModel, ConfigDict

from gradsim import forecast
from gradsim.errors import GradsimError
from gradsim.partition_job import PartitionJob
from gradsim.study.partitions import select_partitions
from gradsim.tables.lineage import PROJECTED_TABLES
from gradsim.tables.rates import MeasuredRates


class Question(BaseModel):
    """Job to predict, with the device that it runs on and the rates measured there."""

    model_config = ConfigDict(frozen=True)

    job: PartitionJob
    device: str
    rates: MeasuredRates


def predicted_seconds(question: Question) -> float:
    """Return the predicted seconds of a job, computed in a separate process.

    Raises:
        GradsimError: The job's inputs cannot be read or do not fit the device.
    """
    command = [sys.executable, "-m", "gradsim.forecast.job"]
    text = question.model_dump_json()
    process = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    if process.returncode:
        last = (process.stderr.strip().splitlines() or [f"exit status {process.returncode}"])[-1]
        raise GradsimError(f"the job's run time cannot be predicted ({last}); set SLURM_TIME")
    return float(process.stdout.split()[-1])


def answer(question: Question) -> float:
    """Return the predicted seconds of a job's passes and comparisons."""
    job, known = question.job, question.rates
    store = job.store()
    sources = forecast.Sources(store, lambda: store.read(store.lineage.key("samples")))
    forecaster = forecast.Forecaster(sources, forecast.Machine(question.device, known.memory_budget, known.rates))
    partitions = select_partitions(job.study.partitions, [str(partition) for partition in job.partitions])
    parts = [forecast.partition_inputs(sources, setting, each) for setting in job.settings for each in partitions]
    inputs = forecast.ForecastInputs.of(parts, sources.originals)
    projected = any(key.name in PROJECTED_TABLES for key in job.keys)
    prediction = forecaster.predict(inputs, forecaster.projectors if projected else [])
    assert prediction.seconds is not None  # rates are known
    return prediction.seconds


if __name__ == "__main__":
    print(answer(Question.model_validate_json(sys.stdin.read())))
