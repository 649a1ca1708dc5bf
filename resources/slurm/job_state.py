"""What Slurm and a job's own files tell of it: one command to look while it lives, one when it has ended."""

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

# There when the result was taken.
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

# Reasons for which a job waits that no waiting mends; one that somebody holds, somebody may release.
_FOR_EVER = re.compile(
    r"Partition(Time|Node)Limit|BadConstraints|Invalid(Account|QOS)|QOSNotAllowed|AccountNotAllowed|"
    r"Max\w*Per(Job|Node)|\w*MinutesPerJob"
)

LOG_LINES = 50

# Of messages and of the log, at most so many bytes at one look.
_LOOK_BYTES = 1_000_000

# Stands between the parts of an answer; no log has it by chance.
_CUT = "=====gradsim-4f1c9e====="

# A controller or database that does not answer must not hold up everything.
_SLURM = "timeout 30"

# The collector asks through one only where it is not given what sacct said.
_NO_POOL: Any = None

_SACCT_FIELDS = SlurmMetricsCollector.SACCT_FORMAT


@dataclass(frozen=True)
class Look:
    """A living job, looked at.

    Attributes:
        state: as Slurm names it; "": Slurm knows the job no more; None: Slurm does not answer.
        reason: why it is in that state, as Slurm says it; of None, what was said in place of an answer.
        messages: what the job has written of its messages since the last look.
        log: the same of its log.
    """

    state: str | None
    reason: str
    messages: bytes
    log: bytes

    @property
    def has_ended(self) -> bool:
        """Whether the job will do nothing more."""
        return self.state == "" or self.state in ENDED

    @property
    def will_never_start(self) -> bool:
        """Whether it waits for what does not come by waiting."""
        return self.state == "PENDING" and bool(_FOR_EVER.search(self.reason))


def look_command(folder: PurePosixPath, job_id: int, messages_from: int, log_from: int) -> str:
    """Prints state and reason, new messages, new lines of the log; the numbers are bytes seen before."""
    return (
        f"{_enter(folder)}; "
        f"{_SLURM} squeue -h -a -t all -j {job_id} -o '%T|%r' 2>&1; printf '\\nstatus=%s\\n{_CUT}' $?; "
        f"tail -c +{messages_from + 1} {MESSAGES} 2>/dev/null | head -c {_LOOK_BYTES}; printf '{_CUT}'; "
        f"tail -c +{log_from + 1} {LOG} 2>/dev/null | head -c {_LOOK_BYTES}; printf '{_CUT}'"
    )


def _enter(folder: PurePosixPath) -> str:
    """Goes where the job's files are; where that is gone none of them is found, and Slurm is asked all the same."""
    return f"cd {shlex.quote(str(folder))} 2>/dev/null || cd /"


def parse_look(answer: Answer) -> Look:
    """What `look_command` printed."""
    queue, messages, log, *_ = [*answer.output.split(_CUT.encode()), b"", b""]
    text, _, status = queue.decode(errors="replace").strip().rpartition("status=")
    state, reason = _queue_state(text.strip(), status)
    return Look(state, reason, messages, log)


def _queue_state(text: str, status: str) -> tuple[str | None, str]:
    if status == "0":
        # Of a job that was requeued squeue may print a line for each of its lives; the last one is the living.
        last = text.splitlines()[-1] if text else ""
        state, _, reason = last.partition("|")
        return state.split(" ")[0], reason
    if "Invalid job id" in text:
        return "", ""
    return None, text or "squeue did not answer"


def job_number(answer: Answer) -> int:
    """Slurm's number of a job that was submitted: what stands alone in the last such line, whatever sbatch says beside.

    Raises:
        ClusterError: there is none.
    """
    found = re.findall(r"^(?:\w+ )?(\d+)(?:;\S*)?$", answer.text, re.MULTILINE)
    if not found:
        raise ClusterError(f"sbatch said {answer.text!r}, which names no job; look for it: squeue --me")
    return int(found[-1])


@dataclass(frozen=True)
class JobEnd:
    """A job that has ended.

    Attributes:
        job_id: Slurm's number of it.
        state: how, as Slurm names it; "": nobody knows, the cluster keeps no accounting.
        exit_status: of its script; None: the script did not come to its end.
        signal: the signal that ended it, 0 if none.
        asked: what it had asked for that may have been too little: `memory`, `walltime`; as Slurm says it.
        node: where it ran, "" if nobody knows.
        result: what it left; None: nothing that can be read.
        log: the last lines of its log.
        metrics: what it used, by Slurm's accounting; None: there is none, or it does not answer.
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
        """Whether it seems to have ended well, and has not left what every job leaves that comes to its end."""
        return self.state in {"COMPLETED", ""} and self.exit_status is None


def end_command(folder: PurePosixPath, job_id: int) -> str:
    """Prints exit status, result, the log's last lines, the controller's and the accounting's record of the job."""
    return (
        # Listing a folder has a network file system look again.
        f"{_enter(folder)}; ls >/dev/null 2>&1; "
        f"cat {STATUS} 2>/dev/null; printf '{_CUT}'; "
        f"cat {RESULT} 2>/dev/null; printf '{_CUT}'; "
        f"tail -n {LOG_LINES} {LOG} 2>/dev/null; printf '{_CUT}'; "
        f"{_SLURM} scontrol show job {job_id} -o 2>/dev/null; printf '{_CUT}'; "
        f"{_SLURM} sacct -j {job_id} -n -P --format={_SACCT_FIELDS} 2>/dev/null; printf '{_CUT}'"
    )


def parse_end(answer: Answer, job_id: int, seen: str) -> JobEnd:
    """What `end_command` printed, of a job that was last seen in a state."""
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
    """Of Slurm's `status:signal`."""
    _, _, signal = exit_code.partition(":")
    return int(signal) if signal.isdigit() else 0


def _result(text: str) -> JobResult | None:
    try:
        return JobResult.model_validate_json(text)
    except ValueError:
        return None
