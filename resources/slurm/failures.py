"""Explanations, with fixes, of refused submissions and failed jobs."""

import re
from dataclasses import dataclass

from resources.slurm.connection import Answer
from resources.slurm.job_state import JobEnd
from resources.slurm.site import Site

# Output of Slurm's commands while the controller is unavailable.
_AWAY = re.compile(
    r"Unable to contact slurm controller|Socket timed out|standby mode|Zero Bytes were transmitted|Connection refused"
)

# Exit status of the submission script if the environment's Python is missing.
NO_ENVIRONMENT = 6

# Pattern in the output of sbatch or the shell -> the fix.
_REFUSALS = {
    r"[Ii]nvalid partition": "there is no such Slurm partition; set SLURM_PARTITION to one of `sinfo -s`",
    r"[Ii]nvalid account|account or account/partition": "the account is unknown, expired or not yours; set "
    "SLURM_ACCOUNT to one of `sacctmgr show assoc user=$USER format=account,partition,qos`",
    r"[Ii]nvalid qos": "set SLURM_QOS to one of `sacctmgr show assoc user=$USER format=account,partition,qos`",
    r"SubmitJob|MaxSubmit": "too many jobs are queued already; lower GRADSIM_CONCURRENT_JOBS, or wait",
    r"(?:QOS|Assoc)\w+": "a limit of the account or QOS; request less, or set SLURM_ACCOUNT or SLURM_QOS",
    r"job submit limit": "a limit of the account or QOS: lower GRADSIM_CONCURRENT_JOBS, the job's size or SLURM_TIME",
    r"time limit|TimeLimit": "the walltime is longer than the partition allows; set SLURM_TIME or SLURM_PARTITION",
    r"Memory specification|more memory": "no node has that much memory; lower SLURM_MEM",
    r"generic resource|\b(?:gres|GRES)\b": "no node has these GPUs; set SLURM_GPUS_PER_NODE (0 for none) or "
    "SLURM_PARTITION",
    r"node configuration is not available": "no node of the partition has SLURM_CPUS, SLURM_MEM and "
    "SLURM_GPUS_PER_NODE together; lower one of them",
    r"No space left|[Qq]uota exceeded": "the cluster's disk is full; make room, or set SLURM_REMOTE_BASE elsewhere",
    r"Permission denied|Read-only": "set SLURM_REMOTE_BASE to a folder of the cluster that you can write",
    r"command not found": "the login node lacks a program; SLURM_SSH_HOST must be a host with sbatch and squeue",
}

# Log lines of an out-of-memory kill that Slurm does not report as OUT_OF_MEMORY.
_OUT_OF_MEMORY = re.compile(r"Exceeded job memory limit|oom.kill|Out Of Memory|StepOOM", re.IGNORECASE)
_SIGKILL = 9

# States after which a retry of the same job may succeed.
_WORTH_A_RETRY = {
    "NODE_FAIL": "its node failed",
    "BOOT_FAIL": "its node did not start",
    "PREEMPTED": "another job preempted it",
    "REVOKED": "another cluster took it over",
}


@dataclass(frozen=True)
class Explanation:
    """Why a job failed.

    Attributes:
        text: One line with the reason and, if there is one, the fix.
        retry: Whether the same job may succeed if it is simply run again.
    """

    text: str
    retry: bool = False


def is_away(answer: Answer) -> bool:
    """Return whether a command failed because Slurm's controller does not answer at the moment."""
    return bool(_AWAY.search(answer.errors))


def refusal(answer: Answer, site: Site) -> str:
    """Return why a submission was refused and how to fix it."""
    if answer.status == NO_ENVIRONMENT:
        return f"{site.address}: {site.python} does not exist; install this code's environment: gradsim cluster install"
    said = answer.complaint
    for pattern, fix in _REFUSALS.items():
        if found := re.search(pattern, answer.errors):
            limit = f"{found[0]}: " if fix.startswith("a limit of the account or QOS;") else ""
            return f"{site.address}: the job was refused ({said}); {limit}{fix}"
    return f"{site.address}: the job was refused ({said})"


def explain(end: JobEnd) -> Explanation:
    """Return why a job without a usable result failed."""
    name = f"Slurm job {end.job_id}"
    if early := _WORTH_A_RETRY.get(end.state):
        return Explanation(f"{name} ended early: {early} ({end.state})", retry=True)
    if end.state in {"TIMEOUT", "DEADLINE"}:
        limit = f" of {end.asked['walltime']}" if end.asked["walltime"] else ""
        return Explanation(
            f"{name} exceeded its walltime{limit} ({end.state}): raise SLURM_TIME, or lower "
            f"GRADSIM_PARTITIONS_PER_JOB; {_KEPT}"
        )
    told = end.state in {"CANCELLED", "OUT_OF_MEMORY"}
    by_the_log = not told and end.exit_status in {None, 128 + _SIGKILL} and _OUT_OF_MEMORY.search(end.log)
    if end.state == "OUT_OF_MEMORY" or by_the_log:
        limit = f" of {end.asked['memory']}" if end.asked["memory"] else ""
        return Explanation(
            f"{name} exceeded its memory limit{limit} (OUT_OF_MEMORY): raise SLURM_MEM, or limit the memory for "
            f"gradients (GRADSIM_MEMORY_BUDGET=4GiB); {_KEPT}"
        )
    return Explanation(f"{name} {_ended(end)}")


# Exit statuses of a shell if a program cannot be run or found.
_NOT_STARTED = {126, 127}

_KEPT = "finished partitions are kept"


def _ended(end: JobEnd) -> str:
    if end.state == "CANCELLED":
        return "was canceled on the cluster; run it again to continue"
    if end.exit_status in _NOT_STARTED:
        return "could not start Python; install the environment again (gradsim cluster install), and check SLURM_SETUP"
    if end.exit_status is not None:
        return f"ended with exit status {end.exit_status}; its log says why"
    how = f"by signal {end.signal}" if end.signal else f"as {end.state}" if end.state else "reason unknown"
    return f"ended before its script was finished ({how}); its log may say why"
