"""Detection of runs with a killed process, which cannot report their own failure and would seem to run forever."""

import os
import socket
from collections.abc import Mapping

import dagster as dg
import psutil

# The web UI does not show tags with this prefix.
HOST, PROCESS, STARTED = (f".dagster/gradsim_{name}" for name in ("host", "process", "process_started"))

# Tolerance for process start times, because the system clock may be adjusted.
SECONDS_OF_CLOCKS = 300

# Id of the run that set the tags: a derived run, such as a retry, inherits the tags of its parent.
RUN = ".dagster/gradsim_process_run"


def process_tags(run_id: str | None = None) -> Mapping[str, str]:
    """Return the tags that assign a run to this process.

    Args:
        run_id: Id of the run; None if it has none yet.
    """
    started = str(psutil.Process().create_time())
    tags = {HOST: socket.gethostname(), PROCESS: str(os.getpid()), STARTED: started}
    return {**tags, RUN: run_id} if run_id else tags


def fail_abandoned_runs(instance: dg.DagsterInstance) -> list[str]:
    """Mark this machine's unfinished runs as failed if their process is gone, and return their ids."""
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
    """Return whether the run's process still exists; another process may have reused its pid."""
    try:
        started = psutil.Process(int(run.tags[PROCESS])).create_time()
    except psutil.NoSuchProcess:
        return False
    return bool(abs(started - float(run.tags[STARTED])) < SECONDS_OF_CLOCKS)
