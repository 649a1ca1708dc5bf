"""From the settings to a shell on the login node with Slurm's programs."""

from dataclasses import replace

from dagster_slurm import SSHConnectionResource

from gradsim.errors import ClusterError
from resources.slurm.check.cluster import Cluster
from resources.slurm.connection import Connection, UnreachableError

# What our commands there call.
PROGRAMS = ("sbatch", "squeue", "scancel", "scontrol", "sinfo", "sha256sum", "tar", "flock", "timeout", "xargs", "df")


def settings(cluster: Cluster) -> str:
    """The variables can be read."""
    site = cluster.settings
    asked = site.settings
    gpus = f"{asked.gpus} GPU{'s' * (asked.gpus > 1)}" if asked.gpus else "no GPU"
    return f"{site.address}; a job asks for {asked.cpus} CPUs, {asked.memory}, {gpus}"


def login(cluster: Cluster) -> str:
    """Somebody can log in who has this key, through the jump host if there is one, and the host is the known one."""
    ssh = cluster.settings.ssh
    if ssh.jump_host:
        _log_into_jump_host(cluster, ssh.jump_host)
    cluster.log_in()
    by = f"by {ssh.key_path}" if ssh.key_path else "by your ssh configuration and agent"
    through = f" through {ssh.jump_host.host}" if ssh.jump_host else ""
    trust = {"off": "host key NOT checked", "accept-new": "host key taken when first seen"}
    return f"{by}{through}; {trust.get(ssh.host_key_checking, 'host key is the known one')}"


def _log_into_jump_host(cluster: Cluster, jump_host: SSHConnectionResource) -> None:
    """Alone, since ssh does not say which of the two hosts refused."""
    jump = Connection(replace(cluster.settings, ssh=jump_host), cluster.say)
    try:
        jump.run("true")  # one that lets nobody run commands answers, too
    except ClusterError as error:
        raise ClusterError(f"jump host {str(error).replace('SLURM_SSH_', 'SLURM_SSH_JUMP_')}") from error
    except UnreachableError as error:
        raise ClusterError(
            f"jump host {jump.site.address}: cannot be reached ({error}); are SLURM_SSH_JUMP_HOST and _PORT right?"
        ) from error


def programs(cluster: Cluster) -> str:
    """Slurm's programs and a few others are where a shell finds them that is no login shell."""
    answer = cluster.ask(f"for each in {' '.join(PROGRAMS)}; do command -v $each >/dev/null || echo $each; done")
    if answer.text:
        raise ClusterError(
            f"the login node lacks {', '.join(answer.text.split())}; SLURM_SSH_HOST must be a host where jobs are "
            "submitted, with Slurm's folder in PATH also without a login shell (at the top of ~/.bashrc there)"
        )
    version = cluster.ask("sbatch --version")
    if version.status:
        raise ClusterError(f"sbatch does not run ({version.complaint}); ask the cluster's operators")
    return f"{version.text}, and all others that are needed"
