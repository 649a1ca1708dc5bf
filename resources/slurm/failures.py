"""Why a submission was refused or a job failed, in words that say how to mend it."""

import re
from dataclasses import dataclass

from resources.slurm.connection import Answer
from resources.slurm.job_state import JobEnd
from resources.slurm.site import Site

# What Slurm's commands say while the controller is away.
_AWAY = re.compile(
    r"Unable to contact slurm controller|Socket timed out|standby mode|Zero Bytes were transmitted|Connection refused"
)

# The exit status by which our submission says that there is no Python.
NO_ENVIRONMENT = 6

# What sbatch or the shell says -> how to mend it.
_REFUSALS = {
    r"[Ii]nvalid partition": "there is no such Slurm partition; set SLURM_PARTITION to one of `sinfo -s`",
    r"[Ii]nvalid account|account or account/partition": "the account is unknown, expired or not yours; set "
    "SLURM_ACCOUNT to one of `sacctmgr show assoc user=$USER format=account,partition,qos`",
    r"[Ii]nvalid qos": "set SLURM_QOS to one of `sacctmgr show assoc user=$USER format=account,partition,qos`",
    r"SubmitJob|MaxSubmit": "too many jobs are queued already; lower GRADSIM_CONCURRENT_JOBS, or wait",
    r"(?:QOS|Assoc)\w+": "a limit of the account or QOS; ask for less, or set SLURM_ACCOUNT or SLURM_QOS",
    r"job submit limit": "a limit of the account or QOS: of jobs (GRADSIM_CONCURRENT_JOBS), their sizes or SLURM_TIME",
    r"time limit|TimeLimit": "the walltime is longer than the partition allows; set SLURM_TIME or SLURM_PARTITION",
    r"Memory specification|more memory": "no node has that much memory; lower SLURM_MEM",
    r"generic resource|\b(?:gres|GRES)\b": "no node has such GPUs; set SLURM_GPUS_PER_NODE (0 for none) or "
    "SLURM_PARTITION",
    r"node configuration is not available": "no node of the partition can give SLURM_CPUS, SLURM_MEM and "
    "SLURM_GPUS_PER_NODE together; lower one of them",
    r"No space left|[Qq]uota exceeded": "the cluster's disk is full; make room, or set SLURM_REMOTE_BASE elsewhere",
    r"Permission denied|Read-only": "set SLURM_REMOTE_BASE to a folder of the cluster that you can write",
    r"command not found": "the login node lacks a program; SLURM_SSH_HOST must be a host where sbatch and squeue run",
}

# Of a log, where no controller says OUT_OF_MEMORY.
_OUT_OF_MEMORY = re.compile(r"Exceeded job memory limit|oom.kill|Out Of Memory|StepOOM", re.IGNORECASE)
_SIGKILL = 9

# States after which the same job may well succeed.
_WORTH_A_RETRY = {
    "NODE_FAIL": "its node failed",
    "BOOT_FAIL": "its node did not start",
    "PREEMPTED": "it had to give way to another job",
    "REVOKED": "another cluster took it",
}


@dataclass(frozen=True)
class Explanation:
    """Why a job failed.

    Attributes:
        text: one line, with how to mend it.
        retry: whether the same job may succeed without anybody doing anything.
    """

    text: str
    retry: bool = False


def is_away(answer: Answer) -> bool:
    """Whether a command failed because Slurm's controller does not answer now."""
    return bool(_AWAY.search(answer.errors))


def refusal(answer: Answer, site: Site) -> str:
    """Why a submission was refused."""
    if answer.status == NO_ENVIRONMENT:
        return f"{site.address}: {site.python} is not there; install this code's environment: gradsim cluster install"
    said = answer.complaint
    for pattern, mend in _REFUSALS.items():
        if found := re.search(pattern, answer.errors):
            limit = f"{found[0]}: " if mend.startswith("a limit of the account or QOS;") else ""
            return f"{site.address}: the job was refused ({said}); {limit}{mend}"
    return f"{site.address}: the job was refused ({said})"


def explain(end: JobEnd) -> Explanation:
    """Why a job that left no good result failed."""
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
            f"{name} needed more memory than its limit{limit} (OUT_OF_MEMORY): raise SLURM_MEM, or bound what "
            f"gradients may take (GRADSIM_MEMORY_BUDGET=4GiB); {_KEPT}"
        )
    return Explanation(f"{name} {_ended(end)}")


# Of a shell that finds no program, or one that cannot be run.
_NOT_STARTED = {126, 127}

_KEPT = "partitions that were finished are kept"


def _ended(end: JobEnd) -> str:
    if end.state == "CANCELLED":
        return "was canceled on the cluster; run it again to go on"
    if end.exit_status in _NOT_STARTED:
        return "could not start Python; install the environment again (gradsim cluster install), and check SLURM_SETUP"
    if end.exit_status is not None:
        return f"ended with exit status {end.exit_status}; its log says why"
    how = f"by signal {end.signal}" if end.signal else f"as {end.state}" if end.state else "nobody knows how"
    return f"ended before its script was through ({how}); its log may say why"
