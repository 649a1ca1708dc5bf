"""The cluster that the other tests use does what they rely on."""

import subprocess
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

FOREVER = "sleep 1000"
WHOLE_CLUSTER = ("--nodes=2", "--exclusive")


def state(lab, job):
    return lab.job(job)["JobState"]


def ssh(lab, *arguments):
    """A command that speaks with the login node."""
    variables = lab.variables
    known_hosts = f"UserKnownHostsFile={variables['SLURM_SSH_KNOWN_HOSTS_FILE']}"
    options = ["-o", known_hosts, "-o", "BatchMode=yes", "-i", variables["SLURM_SSH_KEY"]]
    login = f"{variables['SLURM_SSH_USER']}@{variables['SLURM_SSH_HOST']}"
    return ["ssh", *options, "-p", variables["SLURM_SSH_PORT"], login, *arguments]


def processes_of(lab):
    """The processes that a lab's folder is named to, in their command line or environment."""
    found = []
    for name in ("cmdline", "environ"):
        for path in Path("/proc").glob(f"[0-9]*/{name}"):
            try:
                if bytes(lab.folder) in path.read_bytes():
                    found.append(path.with_name("cmdline").read_bytes())
            except OSError:
                continue
    return found


def test_starting_it_again_changes_nothing(lab):
    pids = {path: path.read_text() for path in lab.folder.glob("run/*.pid")}
    assert len(pids) == 7
    assert "started" not in lab.control("start")
    assert {path: path.read_text() for path in lab.folder.glob("run/*.pid")} == pids


def test_a_job_runs_with_a_gpu_and_is_accounted_for(lab):
    job = lab.submit("echo GPU $CUDA_VISIBLE_DEVICES", "--gpus-per-node=1", "--output=gpu.txt")
    lab.wait_for(lambda: state(lab, job) == "COMPLETED")
    assert (lab.folder / "work/gpu.txt").read_text() == "GPU 0\n"
    lab.wait_for(lambda: lab.run("sacct", "-nPX", "-j", job, "-o", "State,Account") == "COMPLETED|lab\n")


def test_an_account_that_does_not_exist_is_refused(lab):
    with pytest.raises(subprocess.CalledProcessError) as refusal:
        lab.submit("true", "--account=unheard-of")
    assert "Invalid account" in refusal.value.stderr


def test_a_job_that_takes_too_much_memory_is_killed(lab):
    take = "python3 -c 'import time; taken = bytearray(300 * 2**20); time.sleep(1000)'"
    job = lab.submit(take, "--mem=50M", "--output=memory.txt")
    lab.wait_for(lambda: state(lab, job) == "FAILED")
    assert lab.job(job)["ExitCode"] == "0:9"
    assert "Exceeded job memory limit" in (lab.folder / "work/memory.txt").read_text()


def test_a_more_important_job_gets_the_nodes_of_another(lab):
    low = lab.submit(FOREVER, "--partition=low", *WHOLE_CLUSTER)
    lab.wait_for(lambda: state(lab, low) == "RUNNING")
    high = lab.submit(FOREVER, "--partition=high", *WHOLE_CLUSTER)
    lab.wait_for(lambda: state(lab, high) == "RUNNING")
    assert (state(lab, low), lab.job(low)["Restarts"]) == ("PENDING", "1")


def test_a_job_of_a_node_that_dies_starts_again_on_another(lab):
    job = lab.submit(FOREVER, "--requeue")
    lab.wait_for(lambda: state(lab, job) == "RUNNING")
    first = lab.job(job)["NodeList"]
    lab.kill_node(first)
    assert state(lab, job) == "RUNNING"  # nobody told the controller
    lab.wait_for(lambda: lab.job(job)["Restarts"] == "1" and state(lab, job) == "RUNNING")
    assert {first, lab.job(job)["NodeList"]} == {"lab1", "lab2"}


def test_an_outage_of_the_login_node_ends_open_sessions_but_no_jobs(lab):
    job = lab.submit(FOREVER)
    assert "wrap" in subprocess.run(ssh(lab, "squeue"), capture_output=True, text=True, check=True).stdout
    shared = lab.folder / "master"
    master = subprocess.Popen(ssh(lab, "-o", "ControlMaster=yes", "-o", f"ControlPath={shared}", "-N"))
    lab.wait_for(shared.exists)
    lab.stop("sshd")
    assert master.wait(timeout=10) == 255
    assert subprocess.run(ssh(lab, "true"), check=False, capture_output=True).returncode == 255
    lab.start("sshd")
    subprocess.run(ssh(lab, "true"), check=True)
    assert state(lab, job) in {"PENDING", "RUNNING"}


def test_stopping_it_leaves_no_process(lab):
    job = lab.submit(f"setsid --fork {FOREVER}; {FOREVER}", "--output=none")
    lab.wait_for(lambda: state(lab, job) == "RUNNING")
    with subprocess.Popen(ssh(lab, FOREVER), stderr=subprocess.DEVNULL) as session:
        lab.wait_for(lambda: any(FOREVER.encode() in process for process in processes_of(lab)))
        lab.control("stop")
        assert session.wait(timeout=10) == 255
    assert processes_of(lab) == []


def test_without_accounting_jobs_run_but_sacct_does_not(lab_without_accounting):
    job = lab_without_accounting.submit("true")
    lab_without_accounting.wait_for(lambda: state(lab_without_accounting, job) == "COMPLETED")
    with pytest.raises(subprocess.CalledProcessError):
        lab_without_accounting.run("sacct")


def test_what_cannot_be_done_is_said(lab):
    with pytest.raises(subprocess.CalledProcessError) as error:
        lab.start("slurmd-lab9")
    assert "there is no daemon slurmd-lab9; choose one of munged, mariadbd," in error.value.stderr
    with pytest.raises(subprocess.CalledProcessError) as error:
        lab.control("start", "--nodes=3")
    assert "was made with other values of nodes" in error.value.stderr
