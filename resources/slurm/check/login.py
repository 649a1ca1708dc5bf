"""Checks of the settings, the ssh login, and the programs on the login node."""

from dataclasses import replace

from dagster_slurm import SSHConnectionResource

from gradsim.errors import ClusterError
from resources.slurm.check.cluster import Cluster
from resources.slurm.connection import Connection, UnreachableError

# Programs that the commands on the login node use.
PROGRAMS = ("sbatch", "squeue", "scancel", "scontrol", "sinfo", "sha256sum", "tar", "flock", "timeout", "xargs", "df")


def settings(cluster: Cluster) -> str:
    """Check that the site's variables are valid."""
    site = cluster.settings
    asked = site.settings
    gpus = f"{asked.gpus} GPU{'s' * (asked.gpus > 1)}" if asked.gpus else "no GPU"
    return f"{site.address}; a job requests {asked.cpus} CPUs, {asked.memory}, {gpus}"


def login(cluster: Cluster) -> str:
    """Check that the login works with this key, through the jump host if there is one, and the host key is known."""
    ssh = cluster.settings.ssh
    if ssh.jump_host:
        _log_into_jump_host(cluster, ssh.jump_host)
    cluster.log_in()
    by = f"with {ssh.key_path}" if ssh.key_path else "with your ssh configuration and agent"
    through = f" through {ssh.jump_host.host}" if ssh.jump_host else ""
    trust = {"off": "host key NOT checked", "accept-new": "host key trusted on first use"}
    return f"{by}{through}; {trust.get(ssh.host_key_checking, 'host key is known')}"


def _log_into_jump_host(cluster: Cluster, jump_host: SSHConnectionResource) -> None:
    """Log into the jump host alone, because ssh does not report which of the two hosts refused."""
    jump = Connection(replace(cluster.settings, ssh=jump_host), cluster.say)
    try:
        jump.run("true")  # a host that refuses to run commands answers, too
    except ClusterError as error:
        raise ClusterError(f"jump host {str(error).replace('SLURM_SSH_', 'SLURM_SSH_JUMP_')}") from error
    except UnreachableError as error:
        raise ClusterError(
            f"jump host {jump.site.address}: cannot be reached ({error}); are SLURM_SSH_JUMP_HOST and _PORT right?"
        ) from error


def programs(cluster: Cluster) -> str:
    """Check that a non-login shell finds Slurm's programs and a few others."""
    answer = cluster.ask(f"for each in {' '.join(PROGRAMS)}; do command -v $each >/dev/null || echo $each; done")
    if answer.text:
        raise ClusterError(
            f"the login node lacks {', '.join(answer.text.split())}; SLURM_SSH_HOST must be a host where jobs are "
            "submitted, with Slurm's folder in PATH even in a non-login shell (set it at the top of ~/.bashrc there)"
        )
    version = cluster.ask("sbatch --version")
    if version.status:
        raise ClusterError(f"sbatch does not run ({version.complaint}); ask the cluster's operators")
    return f"{version.text} and all other required programs"
