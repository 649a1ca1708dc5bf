"""What is said of a submission that was refused and of a job that failed: by the texts that Slurm really prints."""

import pytest

from resources.slurm.connection import Answer
from resources.slurm.failures import NO_ENVIRONMENT, explain, is_away, refusal
from resources.slurm.job_state import ENDED, JobEnd

FAILED = "sbatch: error: Batch job submission failed: "

ASSOCIATIONS = "one of `sacctmgr show assoc user=$USER format=account,partition,qos`"
FULL = "the cluster's disk is full; make room, or set SLURM_REMOTE_BASE elsewhere"
WRITABLE = "set SLURM_REMOTE_BASE to a folder of the cluster that you can write"
UNAVAILABLE = "Requested node configuration is not available"
POLICY = "Job violates accounting/QOS policy (job submit limit, user's size and/or time limits)"

# What sbatch or the shell prints -> how to fix it; "": nobody knows.
REFUSALS = {
    f"{FAILED}Invalid account or account/partition combination specified": (
        f"the account is unknown, expired or not yours; set SLURM_ACCOUNT to {ASSOCIATIONS}"
    ),
    f"sbatch: error: invalid partition specified: x\n{FAILED}Invalid partition name specified": (
        "there is no such Slurm partition; set SLURM_PARTITION to one of `sinfo -s`"
    ),
    f"{FAILED}Invalid qos specification": f"set SLURM_QOS to {ASSOCIATIONS}",
    f"{FAILED}{UNAVAILABLE}": (
        "no node of the partition has SLURM_CPUS, SLURM_MEM and SLURM_GPUS_PER_NODE together; lower one of them"
    ),
    f"sbatch: error: Memory specification can not be satisfied\n{FAILED}{UNAVAILABLE}": (
        "no node has that much memory; lower SLURM_MEM"
    ),
    f"{FAILED}Invalid generic resource (gres) specification": (
        "no node has these GPUs; set SLURM_GPUS_PER_NODE (0 for none) or SLURM_PARTITION"
    ),
    f"{FAILED}Requested time limit is invalid (missing or exceeds some limit)": (
        "the walltime is longer than the partition allows; set SLURM_TIME or SLURM_PARTITION"
    ),
    f"sbatch: error: AssocMaxSubmitJobLimit\n{FAILED}{POLICY}": (
        "too many jobs are queued already; lower GRADSIM_CONCURRENT_JOBS, or wait"
    ),
    "tar: job.sh: Cannot write: No space left on device\ntar: Exiting with failure status due to previous errors": FULL,
    "mkdir: cannot create directory '/data/gradsim': Disk quota exceeded": FULL,
    "mkdir: cannot create directory '/data': Permission denied": WRITABLE,
    "mkdir: cannot create directory '/data': Read-only file system": WRITABLE,
    "bash: line 6: sbatch: command not found": (
        "the login node lacks a program; SLURM_SSH_HOST must be a host with sbatch and squeue"
    ),
    f"{FAILED}Unable to contact slurm controller (connect failure)": "",
    f"{FAILED}Unspecified error": "",
    "": "",
}


@pytest.mark.parametrize("errors", REFUSALS)
def test_a_refusal_is_one_line_that_says_how_to_mend_it(site_of, errors):
    last = errors.splitlines()[-1].removeprefix("sbatch: error: ") if errors else "exit status 5"
    fix = f"; {REFUSALS[errors]}" if REFUSALS[errors] else ""
    said = refusal(Answer(5, b"", errors), site_of())
    assert said == f"someone@login.example.org: the job was refused ({last}){fix}"


@pytest.mark.parametrize("limit", ["QOSMaxCpuPerJobLimit", "AssocMaxWallDurationPerJobLimit", "QOSMaxMemoryPerJob"])
def test_a_limit_of_the_account_is_named(site_of, limit):
    said = refusal(Answer(5, b"", f"sbatch: error: {limit}\n{FAILED}{POLICY}"), site_of())
    assert limit in said
    assert "too many jobs" not in said


def test_a_folder_s_name_is_no_reason(site_of):
    errors = "mkdir: cannot create directory '/home/gresham/gradsim': Permission denied"
    assert "set SLURM_REMOTE_BASE" in refusal(Answer(4, b"", errors), site_of())


def test_an_environment_that_is_not_installed(site_of):
    assert refusal(Answer(NO_ENVIRONMENT, b"", ""), site_of(SLURM_ENVIRONMENT="/opt/mine")) == (
        "someone@login.example.org: /opt/mine/bin/python does not exist; install this code's environment: "
        "gradsim cluster install"
    )


@pytest.mark.parametrize(
    ("errors", "away"),
    [
        (f"{FAILED}Unable to contact slurm controller (connect failure)", True),
        ("slurm_load_jobs error: Unable to contact slurm controller (connect failure)", True),
        ("slurm_load_jobs error: Socket timed out on send/recv operation", True),
        (f"{FAILED}Slurm backup controller in standby mode", True),
        (f"{FAILED}Zero Bytes were transmitted or received", True),
        ("sbatch: error: slurm_persist_conn_open_without_init: failed to open: Connection refused", True),
        (f"{FAILED}Invalid partition name specified", False),
        ("", False),
    ],
)
def test_a_controller_that_is_away_is_no_refusal(errors, away):
    assert is_away(Answer(5, b"", errors)) == away


def end(state="", exit_status=None, signal=0, log="", memory="300M", walltime="00:10:00"):
    asked = {"memory": memory, "walltime": walltime}
    return JobEnd(17, state, exit_status, signal, asked, node="lab1", result=None, log=log, metrics=None)


KEPT = "; finished partitions are kept"
MEMORY = (
    "Slurm job 17 exceeded its memory limit of 300M (OUT_OF_MEMORY): raise SLURM_MEM, or limit the memory for "
    f"gradients (GRADSIM_MEMORY_BUDGET=4GiB){KEPT}"
)
FIX_TIME = f"raise SLURM_TIME, or lower GRADSIM_PARTITIONS_PER_JOB{KEPT}"
PYTHON = (
    "Slurm job 17 could not start Python; install the environment again (gradsim cluster install), and check "
    "SLURM_SETUP"
)
EARLY = "Slurm job 17 ended before its script was finished "

# State -> what is said where the job's script did not come to its end.
STATES = {
    "COMPLETED": f"{EARLY}(as COMPLETED); its log may say why",
    "FAILED": f"{EARLY}(as FAILED); its log may say why",
    "CANCELLED": "Slurm job 17 was canceled on the cluster; run it again to continue",
    "TIMEOUT": f"Slurm job 17 exceeded its walltime of 00:10:00 (TIMEOUT): {FIX_TIME}",
    "DEADLINE": f"Slurm job 17 exceeded its walltime of 00:10:00 (DEADLINE): {FIX_TIME}",
    "OUT_OF_MEMORY": MEMORY,
    "NODE_FAIL": "Slurm job 17 ended early: its node failed (NODE_FAIL)",
    "BOOT_FAIL": "Slurm job 17 ended early: its node did not start (BOOT_FAIL)",
    "PREEMPTED": "Slurm job 17 ended early: another job preempted it (PREEMPTED)",
    "REVOKED": "Slurm job 17 ended early: another cluster took it over (REVOKED)",
    "": f"{EARLY}(reason unknown); its log may say why",
}


@pytest.mark.parametrize("state", STATES)
def test_every_end_is_explained(state):
    explanation = explain(end(state))
    assert explanation.text == STATES[state]
    assert explanation.retry == ("ended early" in STATES[state])


def test_there_is_no_other_end():
    assert set(STATES) == ENDED | {""}


@pytest.mark.parametrize("state", ["FAILED", "COMPLETED", ""])
@pytest.mark.parametrize(
    ("exit_status", "said"),
    [
        (0, "Slurm job 17 ended with exit status 0; its log says why"),
        (7, "Slurm job 17 ended with exit status 7; its log says why"),
        (137, "Slurm job 17 ended with exit status 137; its log says why"),
        (126, PYTHON),
        (127, PYTHON),
    ],
)
def test_an_exit_status_says_more_than_a_state(state, exit_status, said):
    assert explain(end(state, exit_status)).text == said


def test_a_signal_says_more_than_a_state():
    assert explain(end("FAILED", signal=9)).text == f"{EARLY}(by signal 9); its log may say why"


@pytest.mark.parametrize("state", ["FAILED", ""])
@pytest.mark.parametrize("exit_status", [None, 137])
@pytest.mark.parametrize(
    "line",
    [
        "slurmstepd: error: Detected 1 oom-kill event(s) in StepId=17.batch cgroup. Some of your processes may have "
        "been killed by the cgroup out-of-memory handler.",
        "slurmstepd: error: Detected 1 oom_kill event in StepId=17.batch. Some of the step tasks have been OOM Killed.",
        "slurmstepd: error: Exceeded job memory limit",
    ],
)
def test_a_kill_for_memory_is_seen_in_the_log(state, exit_status, line):
    assert explain(end(state, exit_status, log=f"a line\n{line}\nanother")).text == MEMORY


def test_an_exit_status_of_its_own_says_more_than_the_log():
    assert explain(end("FAILED", 1, log="RuntimeError: out of memory")).text.endswith("exit status 1; its log says why")


@pytest.mark.parametrize("state", ["TIMEOUT", "DEADLINE", "CANCELLED"])
def test_what_slurm_tells_says_more_than_the_log(state):
    log = "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB\nslurmstepd: error: *** JOB 17 ***"
    assert explain(end(state, log=log)).text == STATES[state]


@pytest.mark.parametrize("state", ["TIMEOUT", "OUT_OF_MEMORY"])
def test_a_limit_that_nobody_knows_is_left_out(state):
    known, unknown = explain(end(state)).text, explain(end(state, memory="", walltime="")).text
    assert unknown == known.replace(" of 00:10:00", "").replace(" of 300M", "")
    assert unknown != known
