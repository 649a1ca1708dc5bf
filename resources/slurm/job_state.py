"""The state of a job, from Slurm and from the job's files: one command for a live job, one for a job that has ended."""

import re
import shlex
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from dagster_slurm.helpers.metrics import SlurmJobMetrics, SlurmMetricsCollector

from gradsim.errors import ClusterError
from gradsim.partition_job import JobResult
from resources.slurm.connection import Answer

RESULT, STATUS, MESSAGES, LOG = "job.result.json", "exit_status", "messages.jsonl", "job.log"

# Marker file: the result was collected.
TAKEN = "taken"

ENDED = frozenset(
    {
        "COMPLETED",
        "FAILED",
        "CANCELLED",
        "TIMEOUT",
        "OUT_OF_MEMORY",
        "NODE_FAIL",
        "PREEMPTED",
        "BOOT_FAIL",
        "DEADLINE",
        "REVOKED",
    }
)

# Reasons for which a pending job will never start. A held job may be released, so it is not among them.
_FOR_EVER = re.compile(
    r"Partition(Time|Node)Limit|BadConstraints|Invalid(Account|QOS)|QOSNotAllowed|AccountNotAllowed|"
    r"Max\w*Per(Job|Node)|\w*MinutesPerJob"
)

LOG_LINES = 50

# Maximum number of bytes of messages, and of the log, that one look reads.
_LOOK_BYTES = 1_000_000

# Separator between the parts of an answer; no log contains it by chance.
_CUT = "=====gradsim-4f1c9e====="

# A controller or database that does not answer must not block the whole command.
_SLURM = "timeout 30"

# The collector uses a connection pool only if it is not given sacct's output.
_NO_POOL: Any = None

_SACCT_FIELDS = SlurmMetricsCollector.SACCT_FORMAT


@dataclass(frozen=True)
class Look:
    """One observation of a job.

    Attributes:
        state: Slurm's name of the state; "" if Slurm no longer lists the job; None if Slurm does not answer.
        reason: Slurm's reason for the state; squeue's output if the state is None.
        messages: Bytes of the message file since the last look.
        log: Bytes of the log since the last look.
    """

    state: str | None
    reason: str
    messages: bytes
    log: bytes

    @property
    def has_ended(self) -> bool:
        """Whether the job has ended, or has left the queue."""
        return self.state == "" or self.state in ENDED

    @property
    def will_never_start(self) -> bool:
        """Whether the job is pending for a reason that waiting does not resolve."""
        return self.state == "PENDING" and bool(_FOR_EVER.search(self.reason))

    def why_never(self, job_id: int) -> str:
        """Return why a job that `will_never_start` does not, with the fix."""
        return (
            f"Slurm job {job_id} would never start ({self.reason}); request what the partition, account and QOS allow: "
            "SLURM_TIME, SLURM_CPUS, SLURM_MEM, SLURM_GPUS_PER_NODE"
        )


def look_command(folder: PurePosixPath, job_id: int, messages_from: int, log_from: int) -> str:
    """Return the command that prints a job's state and reason, its new messages, and its new log output.

    Args:
        folder: Folder of the job on the cluster.
        job_id: Slurm job id.
        messages_from: Bytes of the message file that were read before.
        log_from: Bytes of the log that were read before.
    """
    return (
        f"{_enter(folder)}; "
        f"{_SLURM} squeue -h -a -t all -j {job_id} -o '%T|%r' 2>&1; printf '\\nstatus=%s\\n{_CUT}' $?; "
        f"tail -c +{messages_from + 1} {MESSAGES} 2>/dev/null | head -c {_LOOK_BYTES}; printf '{_CUT}'; "
        f"tail -c +{log_from + 1} {LOG} 2>/dev/null | head -c {_LOOK_BYTES}; printf '{_CUT}'"
    )


def _enter(folder: PurePosixPath) -> str:
    """Return the command that enters the job's folder, or `/` if it is gone, so that Slurm is asked in any case."""
    return f"cd {shlex.quote(str(folder))} 2>/dev/null || cd /"


def parse_look(answer: Answer) -> Look:
    """Parse the output of `look_command`."""
    queue, messages, log, *_ = [*answer.output.split(_CUT.encode()), b"", b""]
    text, _, status = queue.decode(errors="replace").strip().rpartition("status=")
    state, reason = _queue_state(text.strip(), status)
    return Look(state, reason, messages, log)


def _queue_state(text: str, status: str) -> tuple[str | None, str]:
    if status == "0":
        # For a requeued job, squeue may print a line per attempt; the last line is the current one.
        last = text.splitlines()[-1] if text else ""
        state, _, reason = last.partition("|")
        return state.split(" ")[0], reason
    if "Invalid job id" in text:
        return "", ""
    return None, text or "squeue did not answer"


def job_number(answer: Answer) -> int:
    """Return the Slurm id of a submitted job: the last line that holds only an id. Other output is ignored.

    Raises:
        ClusterError: There is no such line.
    """
    found = re.findall(r"^(?:\w+ )?(\d+)(?:;\S*)?$", answer.text, re.MULTILINE)
    if not found:
        raise ClusterError(f"sbatch printed {answer.text!r}, without a job id; look for the job: squeue --me")
    return int(found[-1])


@dataclass(frozen=True)
class JobEnd:
    """A job that has ended.

    Attributes:
        job_id: Slurm job id.
        state: Slurm's name of the final state; "" if it is unknown, for example without accounting.
        exit_status: Exit status of the batch script; None if the script did not finish.
        signal: Signal that ended the job; 0 if none.
        asked: Limits that the job requested, `memory` and `walltime`, in Slurm's notation.
        node: Node where the job ran; "" if unknown.
        result: The job's result; None if it left no readable one.
        log: Last lines of the job's log.
        metrics: Resource usage from Slurm's accounting; None if accounting is missing or does not answer.
    """

    job_id: int
    state: str
    exit_status: int | None
    signal: int
    asked: dict[str, str]
    node: str
    result: JobResult | None
    log: str
    metrics: SlurmJobMetrics | None

    @property
    def lacks_files(self) -> bool:
        """Whether the job seems to have succeeded, but its exit status file is not visible."""
        return self.state in {"COMPLETED", ""} and self.exit_status is None


def end_command(folder: PurePosixPath, job_id: int) -> str:
    """Return the command that prints a job's exit status, result, last log lines, and Slurm's records of the job."""
    return (
        # Listing a folder refreshes a network file system's cache.
        f"{_enter(folder)}; ls >/dev/null 2>&1; "
        f"cat {STATUS} 2>/dev/null; printf '{_CUT}'; "
        f"cat {RESULT} 2>/dev/null; printf '{_CUT}'; "
        f"tail -n {LOG_LINES} {LOG} 2>/dev/null; printf '{_CUT}'; "
        f"{_SLURM} scontrol show job {job_id} -o 2>/dev/null; printf '{_CUT}'; "
        f"{_SLURM} sacct -j {job_id} -n -P --format={_SACCT_FIELDS} 2>/dev/null; printf '{_CUT}'"
    )


def parse_end(answer: Answer, job_id: int, seen: str) -> JobEnd:
    """Parse the output of `end_command`.

    Args:
        answer: Output of the command.
        job_id: Slurm job id.
        seen: State in which the job was last seen, used if Slurm no longer reports one.
    """
    status, result, log, controller, accounting, *_ = [
        part.decode(errors="replace").strip() for part in [*answer.output.split(_CUT.encode()), *[b""] * 5]
    ]
    record = dict(re.findall(r"(\S+?)=(\S*)", controller))
    rows = [line.split("|") for line in accounting.splitlines()]
    columns = _SACCT_FIELDS.split(",")
    job_row = next((dict(zip(columns, row, strict=False)) for row in rows if row[0] == str(job_id)), {})
    # "CANCELLED by 1000"
    known = (job_row.get("State") or record.get("JobState") or seen).split(" ")[0]
    state = known if known in ENDED else seen if seen in ENDED else ""
    return JobEnd(
        job_id=job_id,
        state=state,
        exit_status=int(status) if status.isdigit() else None,
        signal=_signal(job_row.get("ExitCode") or record.get("ExitCode") or ""),
        asked={"memory": record.get("MinMemoryNode", ""), "walltime": record.get("TimeLimit", "")},
        node=record.get("BatchHost") or job_row.get("NodeList") or "",
        result=_result(result),
        log=log,
        metrics=SlurmMetricsCollector().collect_job_metrics(job_id, _NO_POOL, accounting) if job_row else None,
    )


def _signal(exit_code: str) -> int:
    """Return the signal of Slurm's `status:signal`; 0 if there is none."""
    _, _, signal = exit_code.partition(":")
    return int(signal) if signal.isdigit() else 0


def _result(text: str) -> JobResult | None:
    try:
        return JobResult.model_validate_json(text)
    except ValueError:
        return None
