"""Runs whose process was killed: nothing in them could say so, and they would seem to run for ever."""

import os
import socket
from collections.abc import Mapping

import dagster as dg
import psutil

HOST, PROCESS = "gradsim/host", "gradsim/process"


def process_tags() -> Mapping[str, str]:
    """The tags by which a run is known to be of this process."""
    return {HOST: socket.gethostname(), PROCESS: str(os.getpid())}


def fail_abandoned_runs(instance: dg.DagsterInstance) -> list[str]:
    """Mark runs of this machine whose process is gone as failed; gives their ids."""
    unfinished = dg.RunsFilter(
        statuses=[dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED], tags={HOST: socket.gethostname()}
    )
    abandoned = [record for record in instance.get_run_records(unfinished) if not _is_alive(record)]
    for record in abandoned:
        process = record.dagster_run.tags[PROCESS]
        instance.report_run_failed(record.dagster_run, f"its process ({process}) was killed; run it again")
    return [record.dagster_run.run_id for record in abandoned]


def _is_alive(record: dg.RunRecord) -> bool:
    """Whether the process still is; one that began after the run has only inherited its number."""
    try:
        process = psutil.Process(int(record.dagster_run.tags[PROCESS]))
        return bool(process.create_time() <= record.create_timestamp.timestamp())
    except psutil.NoSuchProcess:
        return False
