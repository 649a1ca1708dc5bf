"""Runs whose process was killed: nothing in them could say so, and they would seem to run for ever."""

import os
import socket
from collections.abc import Mapping

import dagster as dg
import psutil

HOST, PROCESS, STARTED = "gradsim/host", "gradsim/process", "gradsim/process_started"

# When a process began is told by a clock that is set now and then.
SECONDS_OF_CLOCKS = 300

# Whose process it is: a run that is made from another one, such as a retry, inherits that one's tags.
RUN = "gradsim/process_run"


def process_tags(run_id: str | None = None) -> Mapping[str, str]:
    """The tags by which a run is known to be of this process; without its id where it has none yet."""
    started = str(psutil.Process().create_time())
    tags = {HOST: socket.gethostname(), PROCESS: str(os.getpid()), STARTED: started}
    return {**tags, RUN: run_id} if run_id else tags


def fail_abandoned_runs(instance: dg.DagsterInstance) -> list[str]:
    """Mark runs of this machine whose process is gone as failed; gives their ids."""
    unfinished = dg.RunsFilter(
        statuses=[dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED], tags={HOST: socket.gethostname()}
    )
    abandoned = [run for run in instance.get_runs(unfinished) if _is_tagged_itself(run) and not _is_alive(run)]
    for run in abandoned:
        instance.report_run_failed(run, f"its process ({run.tags[PROCESS]}) was killed; run it again")
    return [run.run_id for run in abandoned]


def _is_tagged_itself(run: dg.DagsterRun) -> bool:
    return run.parent_run_id is None or run.tags.get(RUN) == run.run_id


def _is_alive(run: dg.DagsterRun) -> bool:
    """Whether the process still is; another one may have inherited its number."""
    try:
        started = psutil.Process(int(run.tags[PROCESS])).create_time()
    except psutil.NoSuchProcess:
        return False
    return bool(abs(started - float(run.tags[STARTED])) < SECONDS_OF_CLOCKS)
