"""A site's settings: what they are by default, where they put things, and what they cannot be."""

import re
from datetime import timedelta
from pathlib import Path, PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradsim.errors import ClusterError
from gradsim.partition_job import PartitionJob, code_version
from gradsim.study import ModelConfiguration
from gradsim.tables import TableKey
from resources.slurm.client import PartitionJobClient
from resources.slurm.connection import Connection
from resources.slurm.script import sbatch_command
from resources.slurm.site import SiteSettings, walltime_text


def test_host_and_user_are_enough(site_of):
    site = site_of()
    assert (site.address, site.device, site.shared_data) == ("someone@login.example.org", "cuda", None)
    assert site.queue == "someone@login.example.org default partition, 1 GPUs"
    command = sbatch_command(site.with_home("/home/x"), timedelta(hours=1), "a", site.base, "b")
    assert {"--gres=gpu:1", "--cpus-per-task=4", "--mem=32G", "--time=01:00:00"} < set(command)
    assert not any(option.startswith(("--partition", "--account", "--qos")) for option in command)


def test_paths_lie_in_the_users_home_folder_when_it_is_known(site_of):
    site = site_of().with_home("/home/some one")
    base = PurePosixPath("/home/some one/gradsim")
    assert site.base == base
    assert site.environment.parent == base / "environments"
    assert site.environment.name.startswith(f"gradsim-{code_version()}.")
    assert site.python == site.environment / "bin/python"
    assert site.job_folder("0123") == base / "jobs/0123"


def test_copies_of_two_data_roots_lie_apart(site_of):
    site = site_of(SLURM_REMOTE_BASE="/base")
    mine, other = (site.data(Path(root)) for root in ("/mine", "/other"))
    assert mine.parent == other.parent == PurePosixPath("/base/data")
    assert mine != other
    assert site.data(Path("/mine")) == mine


def test_every_path_may_be_of_the_home_folder(site_of):
    paths = {"SLURM_REMOTE_BASE": "~/there", "SLURM_DATA": "~/my data", "SLURM_ENVIRONMENT": "~/env"}
    unknown = site_of(**paths)
    assert unknown.base == PurePosixPath("~/there")
    site = unknown.with_home("/home/x")
    assert [site.base, site.shared_data, site.data(Path("/here")), site.environment] == [
        PurePosixPath("/home/x", name) for name in ("there", "my data", "my data", "env")
    ]


def test_absolute_paths_are_left_as_they_are(site_of):
    site = site_of(SLURM_REMOTE_BASE="/scratch/me", SLURM_DATA="/data", SLURM_ENVIRONMENT="/opt/env").with_home("/home")
    assert [str(path) for path in (site.base, site.data(Path("/here")), site.python)] == [
        "/scratch/me",
        "/data",
        "/opt/env/bin/python",
    ]


def test_an_empty_variable_is_as_none(site_of):
    assert site_of(SLURM_DATA="", SLURM_MEM="", SLURM_SSH_PORT="", SLURM_TIME="").settings == site_of().settings


def test_what_a_site_says_is_what_a_job_asks_for(site_of, study):
    site = site_of(
        SLURM_PARTITION="gpu",
        SLURM_ACCOUNT="lab",
        SLURM_QOS="short",
        SLURM_GPUS_PER_NODE="2",
        SLURM_CPUS="8",
        SLURM_MEM="300G",
        SLURM_SSH_PORT="2222",
    ).with_home("/home/x")
    assert site.queue == "someone@login.example.org:2222 gpu, 2 GPUs"
    job = PartitionJob(
        study=study,
        keys=(TableKey("tiny", "dot_products", "word_dropout"),),
        partitions=("0000-0001",),
        fingerprints={},
        root=Path("/data"),
        model=ModelConfiguration("a model"),
    )
    client = PartitionJobClient(site, Connection(site, print), timedelta(minutes=90), print)
    command = client.submission(job, "0123", {})[0].split()
    assert command[0] == "sbatch"
    sizes = {"--mem=300G", "--gres=gpu:2", "--cpus-per-task=8", "--time=01:30:00"}
    assert {*sizes, "--partition=gpu", "--qos=short", "--account=lab", "--requeue"} < set(command)


def test_without_gpus_the_model_runs_on_the_processor_and_memory_is_asked_for(site_of):
    site = site_of(SLURM_GPUS_PER_NODE="0", SLURM_MEM="500M").with_home("/home/x")
    command = sbatch_command(site, timedelta(hours=1), "a", site.base, "b")
    assert (site.device, "--mem=500M" in command) == ("cpu", True)
    assert not any(option.startswith("--gres") for option in command)


def test_a_walltime_of_the_settings_wins(site_of):
    assert site_of(SLURM_TIME="2-00:00:00").walltime(timedelta(hours=1)) == "2-00:00:00"


def test_what_a_cluster_wants_besides_is_said(site_of):
    site = site_of(SLURM_GPU_TYPE="a100", SLURM_MEM="none", SLURM_OPTIONS="--constraint=ib --reservation=x")
    command = sbatch_command(site.with_home("/home/x"), timedelta(hours=1), "a", site.base, "b")
    assert {"--gres=gpu:a100:1", "--constraint=ib --reservation=x"} < set(command)
    assert not any(option.startswith("--mem") for option in command)


@pytest.mark.parametrize(
    ("variable", "value", "need"),
    [
        ("SLURM_GPUS_PER_NODE", "-1", "should be greater than or equal to 0"),
        ("SLURM_GPUS_PER_NODE", "a100:1", "should be a valid integer"),
        ("SLURM_CPUS", "0", "should be greater than or equal to 1"),
        ("SLURM_TIME", "soon", "should be a time such as 04:00:00 or 2-00:00:00"),
        ("SLURM_TIME", "4:00", "should be a time such as 04:00:00 or 2-00:00:00"),
        ("SLURM_STATUS_POLL_INTERVAL", "0", "should be greater than 0"),
        ("SLURM_REMOTE_BASE", "gradsim", "should be an absolute path on the cluster"),
        ("SLURM_DATA", "~someone/data", "should be an absolute path on the cluster"),
        ("SLURM_ENVIRONMENT", "./env", "should be an absolute path on the cluster"),
    ],
)
def test_a_value_that_cannot_be_followed_is_one_clear_line(site_of, variable, value, need):
    with pytest.raises(ClusterError) as caught:
        site_of(**{variable: value})
    assert str(caught.value).startswith(f"{variable}='{value}' in the environment or .env {need}")
    assert str(caught.value).endswith("; correct or unset it")


@pytest.mark.parametrize("value", ["much", "32GB", "1.5G", "-1"])
def test_a_wrong_memory_names_its_variable(site_of, value):
    with pytest.raises(ClusterError, match=rf"^SLURM_MEM='{re.escape(value)}' .*; correct or unset it$"):
        site_of(SLURM_MEM=value)


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"SLURM_SSH_HOST": ""}, "SLURM_SSH_HOST environment variable is required; set it in .env"),
        ({"SLURM_SSH_USER": ""}, "SLURM_SSH_USER environment variable is required; set it in .env"),
        ({"SLURM_SSH_JUMP_HOST": "jump"}, "SLURM_SSH_JUMP_USER environment variable is required; set it in .env"),
        ({"SLURM_SSH_KEY": "/no/key"}, "SLURM_SSH_KEY: SSH key not found at path: /no/key; correct it in .env"),
        ({"SLURM_SSH_HOST_KEY_CHECKING": "maybe"}, "SLURM_SSH_HOST_KEY_CHECKING: Input should be 'off', "),
        ({"SLURM_SSH_PASSWORD": "secret"}, "log in with a key (SLURM_SSH_KEY) or an ssh agent"),
        ({"SLURM_SSH_FORCE_TTY": "true"}, "log in with a key (SLURM_SSH_KEY) or an ssh agent"),
        ({"SLURM_SSH_POST_LOGIN_COMMAND": "vsc5"}, "log in with a key (SLURM_SSH_KEY) or an ssh agent"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_connection_that_cannot_be_made_is_one_clear_line(site_of, variables, said):
    with pytest.raises(ClusterError) as caught:
        site_of(**variables)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"SLURM_SSH_PORT": "abc"}, "SLURM_SSH_PORT"),
        ({"SLURM_SSH_OPTS_EXTRA": "-o 'Compression"}, "SLURM_SSH_OPTS_EXTRA"),
        (
            {"SLURM_SSH_JUMP_HOST": "jump", "SLURM_SSH_JUMP_USER": "me", "SLURM_SSH_JUMP_KEY": "/no/key"},
            "SLURM_SSH_JUMP_KEY",
        ),
        (
            {"SLURM_SSH_JUMP_HOST": "jump", "SLURM_SSH_JUMP_USER": "me", "SLURM_SSH_JUMP_PASSWORD": "secret"},
            "log in with a key",
        ),
        ({"SLURM_DATA": "data"}, "or start with ~/"),
        ({"SLURM_MEM": "32GB"}, "SLURM_MEM='32GB' in the environment or .env should be"),
    ],
    ids=lambda value: list(value)[-1] if isinstance(value, dict) else "",
)
def test_a_wrong_value_names_its_variable_and_what_it_should_be(site_of, variables, said):
    with pytest.raises(ClusterError) as caught:
        site_of(**variables)
    assert said in str(caught.value)


def seconds_of(text):
    """Of a walltime as Slurm reads it."""
    found = re.fullmatch(r"(?:(\d+)-)?(\d+):(\d\d):(\d\d)", text)
    assert found
    days, hours, minutes, seconds = map(int, found.groups(default="0"))
    assert hours < 24
    assert minutes < 60
    return ((days * 24 + hours) * 60 + minutes) * 60 + seconds


@given(st.integers(0, 60 * 24 * 3600))
def test_the_text_of_a_walltime_is_the_next_whole_minute(seconds):
    text = walltime_text(timedelta(seconds=seconds))
    found = seconds_of(text)
    assert found >= max(seconds, 60)  # Slurm takes 0 for no limit
    assert found % 60 == 0
    assert found - 60 < seconds or found == 60
    assert SiteSettings(walltime=text).walltime == text


def test_the_text_of_a_walltime_counts_fractions_of_a_second():
    assert walltime_text(timedelta(seconds=60, microseconds=1)) == "00:02:00"
