"""A run with one step, in a process of its own: runs the job of a file on the cluster, and says what came of it.

python driver.py JOB OUTCOME
"""

import json
import sys
from pathlib import Path
from typing import Any

import dagster as dg

from gradsim.partition_job import PartitionJob
from resources.slurm.compute import SlurmCompute

job = PartitionJob.model_validate_json(Path(sys.argv[1]).read_text(encoding="utf-8"))
results: list[dict[str, Any]] = []


@dg.asset
def table(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
    results.append(SlurmCompute().run(context, job).model_dump(mode="json"))
    return dg.MaterializeResult()


with dg.DagsterInstance.get() as instance:
    run = dg.materialize([table], instance=instance, raise_on_error=False)
    failures = [event.step_failure_data.user_failure_data for event in run.all_events if event.is_step_failure]
    finished = instance.get_run_by_id(run.run_id)
    assert finished
    outcome = {
        "result": results[0] if run.success else None,
        "failure": failures[0].description if failures and failures[0] else None,
        "metadata": {name: value.value for name, value in failures[0].metadata.items()}
        if failures and failures[0]
        else {},
        "said": [entry.user_message for entry in instance.all_logs(run.run_id) if entry.dagster_event is None],
        "materialized": len(run.get_asset_materialization_events()),
        "retries": sum(event.event_type_value == "STEP_RESTARTED" for event in run.all_events),
        "status": finished.status.value,
    }
Path(sys.argv[2]).write_text(json.dumps(outcome), encoding="utf-8")
