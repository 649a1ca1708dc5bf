"""What a cluster or a site's settings do not allow is one clear line, and no job."""

import subprocess
import tempfile

import pytest

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("variables", "description"),
    [
        ({"SLURM_PARTITION": "nowhere"}, "there is no such Slurm partition; set SLURM_PARTITION"),
        ({"SLURM_ACCOUNT": "nobody"}, "the account is unknown, expired or not yours; set SLURM_ACCOUNT"),
        ({"SLURM_MEM": "9000G"}, "lower SLURM_MEM"),
        ({"SLURM_GPUS_PER_NODE": "7"}, "SLURM_GPUS_PER_NODE"),
        ({"SLURM_SSH_KEY": "KEY"}, "the login was refused; SLURM_SSH_USER and SLURM_SSH_KEY must be"),
        ({"SLURM_SSH_KNOWN_HOSTS_FILE": "/dev/null"}, "its host key is not known; "),
        ({"SLURM_SSH_HOST": ""}, "SLURM_SSH_HOST"),
        ({"SLURM_REMOTE_BASE": "/proc/here"}, "the job was refused ("),
        ({"SLURM_TIME": "soon"}, "SLURM_TIME='soon'"),
        (
            {"DAGSTER_SLURM_SSH_CONTROL_DIR": f"/tmp/{'long' * 18}"},
            "set DAGSTER_SLURM_SSH_CONTROL_DIR to a short folder",
        ),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_refusal_is_one_clear_line(runs, lab, tmp_path, variables, description):
    key = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    said = {name: value.replace("KEY", str(key)) for name, value in variables.items()}
    # A living connection would hide that a new one is refused.
    with tempfile.TemporaryDirectory(dir=lab.folder) as control:
        outcome = runs.run(**{"DAGSTER_SLURM_SSH_CONTROL_DIR": control, **said})
    assert description in outcome["failure"]
    assert "\n" not in outcome["failure"]
    assert outcome["materialized"] == 0
    assert runs.submitted() == {}


def test_a_job_that_would_never_start_is_canceled(runs):
    """Slurm takes a job of two days on a partition of one, and lets it wait for ever."""
    outcome = runs.run(SLURM_TIME="2-00:00:00")
    assert "would never start (PartitionTimeLimit); request what the partition, account and" in outcome["failure"]
    assert list(runs.submitted().values()) == ["CANCELLED"]


def test_a_full_disk(runs, tmp_path):
    full = tmp_path / "full"
    full.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4k", "tmpfs", str(full)], check=False)
    if mounted.returncode:
        pytest.skip("the right to mount a small disk is missing")
    try:
        outcome = runs.run(SLURM_REMOTE_BASE=str(full))
    finally:
        subprocess.run(["umount", str(full)], check=True)
    assert "the cluster's disk is full; make room, or set SLURM_REMOTE_BASE elsewhere" in outcome["failure"]
    assert runs.submitted() == {}
