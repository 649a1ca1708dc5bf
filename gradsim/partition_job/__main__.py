"""Entry point of a job: read the job file, compute, report progress, write the result file."""

import argparse
import json
import os
import resource
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from dagster_pipes import open_dagster_pipes
from tqdm import tqdm

from gradsim import models, partition_job
from gradsim.errors import GradsimError
from gradsim.partition_job.code import check_code
from gradsim.partition_job.job import PROGRESS, JobResult, Kind, PartitionJob, Work, result_path
from gradsim.progress import Progress, WorkDone, in_steps
from gradsim.tables import Store
from gradsim.tables.files import atomic_path

# Exit status of an error that the user can fix; the result file contains its message.
USER_ERROR = 3

# (job, store, tables to compute by partition, progress) -> measured cost.
Compute = Callable[[PartitionJob, Store, Work, Progress], Mapping[str, Any]]


def main() -> int:
    """Run the job of a file; write the result file even on failure.

    Returns:
        The exit status.
    """
    parser = argparse.ArgumentParser(prog="python -m gradsim.partition_job")
    parser.add_argument("job", type=Path, help="job file (JSON)")
    path: Path = parser.parse_args().job
    text = path.read_text(encoding="utf-8")
    result = JobResult(partitions=(), fingerprints={})
    try:
        # Checked first, because another version may use another format.
        check_code(json.loads(text).get("code"))
        job = PartitionJob.model_validate_json(text)
        result = JobResult(partitions=job.partitions, fingerprints=job.fingerprints)
        with _progress(job) as progress:
            result = result.model_copy(update=_run(job, progress))
    except GradsimError as error:
        result = result.model_copy(update={"error": str(error)})
        print(f"error: {error}", file=sys.stderr)
        return USER_ERROR
    except BaseException:
        result = result.model_copy(update={"traceback": traceback.format_exc()})
        raise
    finally:
        with atomic_path(result_path(path)) as partial:
            partial.write_text(result.model_dump_json(), encoding="utf-8")
    return 0


def _run(job: PartitionJob, progress: Progress) -> dict[str, Any]:
    store = job.store()
    job.check(store)
    work = job.work(store)
    started = time.perf_counter()
    measured: dict[str, Any] = {**_computation(job.kind)(job, store, work, progress)} if work else {}
    measured["seconds"] = round(time.perf_counter() - started, 3)
    measured["peak_memory_bytes"] = _peak_memory()
    computed = {
        str(key): [partition for partition, keys in work.items() if key in keys]
        for key in job.keys
        if any(key in keys for keys in work.values())
    }
    return {"computed": computed, "measured": measured}


def _computation(kind: Kind) -> Compute:
    """Return the function for a kind of job; this imports torch, which takes seconds."""
    models.hide_progress_bars()
    match kind:
        case "training":
            return partition_job.compute_training
        case "queries":
            return partition_job.compute_queries
        case "gradients":
            return partition_job.compute_gradients
        case "audit":
            return partition_job.compute_audit
        case "index":
            return partition_job.compute_index
        case "rates":
            return partition_job.compute_rates


@contextmanager
def _progress(job: PartitionJob) -> Iterator[Progress]:
    """Yield a progress callback: a progress bar, or messages under Dagster Pipes."""
    unit = "steps" if job.kind == "training" else "samples"
    if "DAGSTER_PIPES_CONTEXT" not in os.environ:
        with tqdm(desc=job.kind, unit=f" {unit}") as bar:
            yield partial(_advance, bar)
        return
    with open_dagster_pipes() as pipes:
        what = f"{' '.join(job.settings) or job.study.name} {job.kind}"
        yield in_steps(
            lambda done, total: pipes.report_custom_message({PROGRESS: asdict(WorkDone(what, done, total, unit))})
        )


def _advance(bar: "tqdm[NoReturn]", done: int, total: int) -> None:
    bar.total = total
    bar.update(done - bar.n)


def _peak_memory() -> int:
    """Return the peak resident set size of this process in bytes."""
    usage = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return usage if sys.platform == "darwin" else usage * 1024


if __name__ == "__main__":
    sys.exit(main())
