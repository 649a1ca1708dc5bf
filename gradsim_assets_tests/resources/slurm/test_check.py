"""What `gradsim cluster check` finds on a real cluster, and what it says of one that is not as it should be."""

import os
import re
import shutil
import socket
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

import gradsim
from gradsim.environment import Environment
from gradsim.errors import ClusterError
from gradsim_assets.cli import app
from resources.diagnosis import Doubt
from resources.slurm.check import CHECKS, JOB_CHECKS, Cluster

pytestmark = pytest.mark.slow

LOOKS = {check.name: check.look for check in (*CHECKS, *JOB_CHECKS)}


@pytest.fixture
def site(lab, monkeypatch, tmp_path):
    """Sets variables of a cluster that is ready; more of them, or others, by name."""
    for name in list(os.environ):
        if name.startswith(("SLURM_", "GRADSIM_")):
            monkeypatch.delenv(name)
    ours = {
        "SLURM_ENVIRONMENT": sys.prefix,
        "SLURM_STATUS_POLL_INTERVAL": "0.2",
        "GRADSIM_DATA": str(tmp_path / "data root"),
        "DAGSTER_SLURM_SSH_CONTROL_DIR": f"{lab.folder}/run",
    }

    def change(**variables):
        for name, value in {**lab.variables, **ours, **variables}.items():
            monkeypatch.setenv(name, str(value))

    change()
    return change


@pytest.fixture
def look(site, tmp_path):
    """Makes one check with some variables."""

    def make(name, seconds_to_start=60, **variables):
        site(**variables)
        environment = Environment(data=tmp_path / "data root")
        with Cluster(environment, print, seconds_to_start=seconds_to_start, seconds_to_be_seen=1) as cluster:
            return LOOKS[name](cluster)

    return make


def check(*arguments):
    """What the command says, without colours, and its exit status."""
    result = CliRunner().invoke(app, ["cluster", "check", *arguments])
    return result.output, result.exit_code


def test_a_cluster_that_is_ready(lab, site, tmp_path):
    data = tmp_path / "data root"
    data.mkdir()
    site(SLURM_DATA=data, SLURM_SETUP="export GREETING=hello\necho a module says so", SLURM_CONTAINER="env VISITED=yes")
    output, status = check()
    assert status == 0, output
    signs = re.findall(r"^(\S) (?=\w)", output, re.MULTILINE)
    assert signs == ["✓"] * len(LOOKS), output
    assert re.search(r"a job +node lab\d: 4 CPUs, 2.0 GB, torch \d\S+, no GPU", output)
    assert output.endswith("the cluster is ready; set GRADSIM_COMPUTE=slurm to use it\n")
    assert list(data.iterdir()) == []
    assert not Path(lab.folder, "work/checks").exists()


def test_a_wrong_key_is_found_though_an_older_connection_lives(lab, site, look, tmp_path):
    look("ssh login")
    key = tmp_path / "key"
    shutil.copy(Path(lab.folder, "ssh/host"), key)
    site(SLURM_SSH_KEY=key)
    output, status = check()
    assert status == 1
    assert "✓ settings" in output
    assert re.search(r"✗ ssh login +root@\S+ the login was refused; SLURM_SSH_USER and SLURM_SSH_KEY must", output)
    assert re.search(r"– not tested +programs, partition, job options, .* a job$", output.strip())


def test_an_unknown_host_key(look, tmp_path):
    with pytest.raises(ClusterError, match=r"host key is not known; compare it .* ssh-keyscan"):
        look("ssh login", SLURM_SSH_KNOWN_HOSTS_FILE=tmp_path / "nothing")


def test_a_host_that_does_not_answer(look):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        with pytest.raises(ClusterError, match=r"cannot be reached .* are SLURM_SSH_HOST and _PORT right"):
            look("ssh login", SLURM_SSH_PORT=unused.getsockname()[1])


def test_a_jump_host(lab, look, tmp_path):
    jump = {
        name.replace("SSH_", "SSH_JUMP_"): value
        for name, value in lab.variables.items()
        if name.startswith("SLURM_SSH_")
    }
    # By another name, lest both logins share a connection.
    behind = {"SLURM_SSH_HOST": "localhost", "SLURM_SSH_HOST_KEY_CHECKING": "off"}
    assert "through 127.0.0.1; host key NOT checked" in look("ssh login", **jump, **behind)
    shutil.copy(Path(lab.folder, "ssh/host"), tmp_path / "key")
    jump |= {"SLURM_SSH_JUMP_KEY": str(tmp_path / "key"), "DAGSTER_SLURM_SSH_CONTROL_DIR": str(tmp_path)}
    with pytest.raises(ClusterError, match=r"^jump host root@.*: the login was refused; SLURM_SSH_JUMP_USER"):
        look("ssh login", **jump, **behind)


def test_settings_that_cannot_be_followed(look):
    with pytest.raises(ClusterError, match=r"SLURM_TIME='soon' .* should be a time"):
        look("settings", SLURM_TIME="soon")


@pytest.mark.parametrize(
    ("name", "variables", "said"),
    [
        ("partition", {"SLURM_PARTITION": "nope"}, "no partition nope; set SLURM_PARTITION to one of low, gpu, high"),
        ("partition", {"SLURM_TIME": "2-00:00:00"}, "request 2-00:00:00, the partition allows 1-00:00:00; set"),
        ("job options", {"SLURM_ACCOUNT": "nope"}, "refused .*; .* set SLURM_ACCOUNT to one of"),
        ("job options", {"SLURM_QOS": "nope"}, "refused .*; set SLURM_QOS to one of"),
        ("job options", {"SLURM_MEM": "9T"}, "refused .*; .*SLURM_MEM"),
        ("job options", {"SLURM_GPUS_PER_NODE": "9"}, "refused .*; .*SLURM_GPUS_PER_NODE"),
        ("remote base", {"SLURM_REMOTE_BASE": "/proc/gradsim"}, "/proc/gradsim cannot be written .*; set SLURM_REMOTE"),
        ("environment", {"SLURM_ENVIRONMENT": "/nowhere"}, "/nowhere cannot run gradsim .*No such file.*; install it"),
        ("environment", {"SLURM_ENVIRONMENT": ""}, "cannot run gradsim .*; run: gradsim cluster install"),
        ("torch", {"SLURM_SETUP": "module load x; exit 3"}, "torch .*; begin SLURM_SETUP with `source /etc/profile`"),
        ("shared data", {"SLURM_DATA": "/nowhere"}, "no folder /nowhere on the cluster; SLURM_DATA must be"),
        (
            "shared data",
            {"SLURM_DATA": "/tmp"},
            "written here does not appear in /tmp; SLURM_DATA must be the cluster's path",
        ),
    ],
)
def test_what_is_wrong_is_said_with_how_to_mend_it(look, name, variables, said):
    with pytest.raises(ClusterError, match=said):
        look(name, **variables)


def test_an_environment_with_other_code(look, tmp_path):
    """One whose copy of the code has a line more."""
    shutil.copytree(Path(gradsim.__file__).parent, tmp_path / "code/gradsim")
    with (tmp_path / "code/gradsim/errors.py").open("a") as file:
        file.write("# changed\n")
    with pytest.raises(ClusterError, match=r"has gradsim 0\S+, this machine 0\S+; .*pip install"):
        look("environment", SLURM_SETUP=f"export PYTHONPATH={tmp_path}/code")


def test_what_runs_containers_may_be_on_nodes_only(look):
    with pytest.raises(Doubt, match=r"^on the login node .* cannot run gradsim \(.*apptainer: command not found"):
        look("environment", SLURM_CONTAINER="apptainer exec image.sif")


def test_without_accounting_it_works(lab, look):
    lab.stop("slurmdbd")
    with pytest.raises(Doubt, match=r"sacct .*; jobs run without it: only resource usage is not shown"):
        look("accounting")


def test_a_job_that_does_not_start_in_time_is_canceled_and_no_error(lab, look):
    lab.submit("sleep 1000", "--nodes=2", "--exclusive")
    with pytest.raises(
        Doubt, match=r"did not start .* \((Resources|Priority|None)\) .* does not mean that the settings are wrong"
    ):
        look("a job", seconds_to_start=1)
    ours = [job for job in lab.jobs() if job["JobName"].startswith("gradsim-check")]
    assert [job["JobState"] for job in ours[-1:]] == ["CANCELLED"]


def test_a_gpu_that_torch_does_not_see(look):
    with pytest.raises(ClusterError, match=r"on node lab\d requested 1 GPU and torch \S+ sees 0; "):
        look("a job", SLURM_GPUS_PER_NODE="1", SLURM_SETUP="export CUDA_VISIBLE_DEVICES=")


def test_a_job_that_breaks(look):
    with pytest.raises(
        ClusterError, match=r"could not start Python on node lab\d: .*/nowhere/bin/python.*; fix SLURM_SETUP"
    ):
        look("a job", SLURM_ENVIRONMENT="/nowhere")


def test_a_node_that_does_not_see_the_data_root(look, tmp_path):
    with pytest.raises(ClusterError, match=r"does not see the data root .*No such file.*; SLURM_DATA must be"):
        look("a job", SLURM_DATA=tmp_path)
