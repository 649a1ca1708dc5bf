"""A cluster from its user's point of view: its address, the resources that a job requests, and its folders."""

import hashlib
import os
import re
import shlex
import socket
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import cached_property
from math import ceil
from pathlib import Path, PurePosixPath

from dagster_slurm import SlurmQueueConfig, SlurmResource, SSHConnectionResource
from pydantic import Field, ValidationError, field_validator

from gradsim.environment import Settings, project_root, read_settings
from gradsim.errors import ClusterError, StudyError
from gradsim.partition_job import code_version

# Detects a dead connection within a minute.
_KEEPALIVE = ("ConnectTimeout=15", "ServerAliveInterval=15", "ServerAliveCountMax=3")


class SiteSettings(Settings):
    """Settings of a site, except for its ssh connection: dagster-slurm reads the `SLURM_SSH_...` variables itself."""

    partition: str | None = Field(None, alias="SLURM_PARTITION")
    account: str | None = Field(None, alias="SLURM_ACCOUNT")
    qos: str | None = Field(None, alias="SLURM_QOS")
    gpus: int = Field(1, alias="SLURM_GPUS_PER_NODE", ge=0)
    cpus: int = Field(4, alias="SLURM_CPUS", ge=1)
    gpu_type: str | None = Field(None, alias="SLURM_GPU_TYPE", pattern=r"^[\w.-]+$")
    memory: str = Field("32G", alias="SLURM_MEM")
    walltime: str | None = Field(None, alias="SLURM_TIME")
    remote_base: str = Field("~/gradsim", alias="SLURM_REMOTE_BASE")
    data: str | None = Field(None, alias="SLURM_DATA")
    environment: str | None = Field(None, alias="SLURM_ENVIRONMENT")
    python: str = Field("python3", alias="SLURM_PYTHON")
    options: str = Field("", alias="SLURM_OPTIONS")
    setup: str = Field("", alias="SLURM_SETUP")
    container: str = Field("", alias="SLURM_CONTAINER")
    poll_seconds: float = Field(1.0, alias="SLURM_STATUS_POLL_INTERVAL", gt=0)

    @field_validator("remote_base", "data", "environment")
    @classmethod
    def _is_absolute(cls, path: str | None) -> str | None:
        if path is not None and not path.startswith(("/", "~/")):
            raise ValueError("should be an absolute path on the cluster, or start with ~/")
        return path

    @field_validator("memory")
    @classmethod
    def _is_memory(cls, text: str) -> str:
        if not re.fullmatch(r"\d+[KMGT]?|none", text):
            raise ValueError("should be a size such as 32G, or none if jobs on this cluster must not request memory")
        return text

    @field_validator("walltime")
    @classmethod
    def _is_walltime(cls, text: str | None) -> str | None:
        if text is not None and not re.fullmatch(r"(\d+-)?\d{1,2}:\d{2}:\d{2}", text):
            raise ValueError("should be a time such as 04:00:00 or 2-00:00:00")
        return text


@dataclass(frozen=True)
class Site:
    """A cluster, and the resources that a job requests there.

    Attributes:
        ssh: Connection to the login node.
        settings: All other settings.
        home: The user's home folder on the cluster, for paths that start with `~`; None before the first connection.
    """

    ssh: SSHConnectionResource
    settings: SiteSettings
    home: str | None = None

    @classmethod
    def read(cls) -> "Site":
        """Read the site from the environment and `.env`.

        Raises:
            ClusterError: A variable is missing or has an invalid value.
        """
        try:
            settings = read_settings(SiteSettings)
            return cls(_read_ssh(), settings)
        except StudyError as error:
            raise ClusterError(str(error)) from error

    def with_home(self, home: str) -> "Site":
        """Return a copy of the site with the user's home folder."""
        return replace(self, home=home)

    @property
    def address(self) -> str:
        """`user@host` for messages, with the port if it is not 22."""
        port = "" if self.ssh.port == 22 else f":{self.ssh.port}"
        return f"{self.ssh.user}@{self.ssh.host}{port}"

    @property
    def queue(self) -> str:
        """Name of the place where jobs run, for messages and as the key of rates measured there."""
        return f"{self.address} {self.settings.partition or 'default partition'}, {self.settings.gpus} GPUs"

    @property
    def device(self) -> str:
        """Device of the model on a node: `cuda` if jobs request GPUs, else `cpu`."""
        return "cuda" if self.settings.gpus else "cpu"

    @cached_property
    def base(self) -> PurePosixPath:
        """Folder of all gradsim files on the cluster, visible to login and compute nodes."""
        return self._there(self.settings.remote_base)

    @property
    def shared_data(self) -> PurePosixPath | None:
        """Data root's path on the cluster; None if the cluster does not share it and files are copied."""
        return self._there(self.settings.data) if self.settings.data else None

    def data(self, root: Path) -> PurePosixPath:
        """Return the data root of jobs: the shared one or, if files are copied, one per machine and local data root."""
        origin = hashlib.sha256(f"{socket.gethostname()}:{root}".encode()).hexdigest()[:8]
        return self.shared_data or self.base / "data" / origin

    @property
    def environment(self) -> PurePosixPath:
        """Virtual environment of jobs; by default the one that `gradsim cluster install` makes for this code."""
        if self.settings.environment:
            return self._there(self.settings.environment)
        return self.base / "environments" / f"gradsim-{code_version()}{_requirements_version()}"

    @property
    def python(self) -> PurePosixPath:
        """Python interpreter of jobs."""
        return self.environment / "bin" / "python"

    def job_folder(self, identity: str) -> PurePosixPath:
        """Return the folder of a job's files."""
        return self.base / "jobs" / identity

    def resource(self) -> SlurmResource:
        """Return the site as a dagster-slurm resource, without the job options, which `script` sets itself."""
        return SlurmResource(
            ssh=self.ssh,
            queue=SlurmQueueConfig(),
            remote_base=str(self.base),
            status_poll_interval_seconds=self.settings.poll_seconds,
            status_poll_max_interval_seconds=max(10.0, self.settings.poll_seconds),
        )

    def walltime(self, predicted: timedelta) -> str:
        """Return the walltime that a job requests: the setting, or else the predicted one."""
        return self.settings.walltime or walltime_text(predicted)

    def _there(self, path: str) -> PurePosixPath:
        if path.startswith("~/") and self.home is not None:
            return PurePosixPath(self.home) / path.removeprefix("~/")
        return PurePosixPath(path)


def _requirements_version() -> str:
    """Return a version suffix of the environment's dependencies; empty without a checkout."""
    files = [project_root() / name for name in ("constraints.txt", "pyproject.toml")]
    if not all(file.is_file() for file in files):
        return ""
    return "." + hashlib.sha256(b"\0".join(file.read_bytes() for file in files)).hexdigest()[:4]


def walltime_text(walltime: timedelta) -> str:
    """Return a walltime in Slurm's notation, rounded up to minutes, Slurm's resolution: `1-04:30:00`."""
    minutes = max(1, ceil(walltime / timedelta(minutes=1)))
    days, minutes = divmod(minutes, 24 * 60)
    return f"{f'{days}-' if days else ''}{minutes // 60:02}:{minutes % 60:02}:00"


def _read_ssh() -> SSHConnectionResource:
    """Read the ssh connection from the `SLURM_SSH_...` variables, as dagster-slurm does.

    Raises:
        ClusterError: A variable is missing or has an invalid value.
    """
    _refuse_unreadable()
    try:
        ssh = SSHConnectionResource.from_env()
    except ValidationError as error:
        first = error.errors()[0]
        variable = f"SLURM_SSH_{first['loc'][0]}".upper() if first["loc"] else "SLURM_SSH_..."
        raise ClusterError(f"{variable}: {first['msg'].removeprefix('Value error, ')}; correct it in .env") from error
    except ValueError as error:
        raise ClusterError(f"{error}; set it in .env, see docs/cluster.md") from error
    if any(each and (each.password or each.force_tty or each.post_login_command) for each in (ssh, ssh.jump_host)):
        raise ClusterError(
            "SLURM_SSH_PASSWORD, _FORCE_TTY and _POST_LOGIN_COMMAND are not supported, because logins are not "
            "interactive; log in with a key (SLURM_SSH_KEY) or an ssh agent"
        )
    keepalive = [part for option in _KEEPALIVE for part in ("-o", option)]
    return ssh.model_copy(update={"extra_opts": [*ssh.extra_opts, *keepalive]})


def _refuse_unreadable() -> None:
    """Raise for values on which dagster-slurm would fail without naming the variable."""
    for prefix in ("SLURM_SSH", "SLURM_SSH_JUMP"):
        port = os.environ.get(f"{prefix}_PORT", "").strip()
        if port and not (port.isdigit() and 0 < int(port) < 1 << 16):
            raise ClusterError(f"{prefix}_PORT: {port!r} is not a port; correct it in .env")
        key = os.environ.get(f"{prefix}_KEY", "").strip()
        if key and not Path(key).expanduser().exists():
            raise ClusterError(f"{prefix}_KEY: SSH key not found at path: {key}; correct it in .env")
        try:
            shlex.split(os.environ.get(f"{prefix}_OPTS_EXTRA", ""))
        except ValueError as error:
            raise ClusterError(f"{prefix}_OPTS_EXTRA: {error}; correct it in .env") from error
