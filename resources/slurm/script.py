"""The batch script of a job, the walltime that it requests, and the `sbatch` command that submits it."""

import io
import shlex
import tarfile
from collections.abc import Mapping
from datetime import timedelta
from pathlib import PurePosixPath
from types import MappingProxyType

from gradsim.environment import JOB_VARIABLES
from gradsim.forecast.job import Question, predicted_seconds
from gradsim.partition_job import PartitionJob
from gradsim.tables.rates import read_site_rates
from resources.slurm.job_state import LOG, RESULT, STATUS
from resources.slurm.site import Site

JOB_FILE, SCRIPT = "job.json", "job.sh"

# Prints the version of an environment's code.
PRINT_CODE_VERSION = "from gradsim.partition_job import code_version; print(code_version())"

# Used without measured rates, and for kinds of jobs that have no prediction.
DEFAULT_WALLTIME = timedelta(hours=4)

# Time that the prediction leaves out: loading the model from a cold disk, checking the gradient rules.
_START = timedelta(minutes=10)

# Nodes are shared and differ in speed.
_MARGIN = 3

assert RESULT == "job.result.json", "the job writes its result beside the job file"


def batch_script(site: Site, job: PartitionJob, folder: PurePosixPath, variables: Mapping[str, str]) -> str:
    """Return a job's batch script: the site's setup lines, then the command that also runs jobs locally."""
    return python_script(site, describe(job), folder, f"-m gradsim.partition_job {JOB_FILE}", variables)


def python_script(
    site: Site, title: str, folder: PurePosixPath, arguments: str, variables: Mapping[str, str] = MappingProxyType({})
) -> str:
    """Return a script that runs the site's Python in a folder and writes its exit status there.

    Args:
        site: The cluster.
        title: Title in the script's first comment.
        folder: Folder on the cluster.
        arguments: Arguments of Python, quoted for the shell.
        variables: Environment variables.
    """
    exports = "".join(f"export {name}={shlex.quote(value)}\n" for name, value in variables.items())
    # Defaults only: the cluster, the user's profile and the site's setup take precedence.
    defaults = "".join(f'export {name}="${{{name}:-{value}}}"\n' for name, value in JOB_VARIABLES.items())
    return (
        "#!/bin/bash\n"
        f"# gradsim: {title}\n"
        f"cd {shlex.quote(str(folder))} || exit 1\n"
        # Left by an attempt before a requeue.
        f"rm -f {RESULT} {STATUS}\n"
        f"{setup_lines(site)}"
        f"{defaults}"
        f"{exports}"
        f"{python_command(site)} {arguments}\n"
        "status=$?\n"
        f"echo $status > {STATUS}\n"
        "exit $status\n"
    )


def setup_lines(site: Site) -> str:
    """Return the shell lines that the site runs first (`SLURM_SETUP`)."""
    setup = site.settings.setup.strip()
    return f"{setup}\n" if setup else ""


def python_command(site: Site) -> str:
    """Return the command of the site's Python, inside the site's container if there is one."""
    return f"{site.settings.container} {shlex.quote(str(site.python))}".strip()


def sbatch_command(site: Site, walltime: timedelta, name: str, folder: PurePosixPath, comment: str) -> list[str]:
    """Return the `sbatch` command that submits the script in a folder with the site's options, quoted for a shell.

    Args:
        site: The cluster.
        walltime: Walltime to request if the site's settings give none.
        name: Name of the job.
        folder: Folder of the script on the cluster; also receives the log.
        comment: Slurm comment of the job.
    """
    settings = site.settings
    gpus = f"gpu:{settings.gpu_type}:{settings.gpus}" if settings.gpu_type else f"gpu:{settings.gpus}"
    options = {
        "job-name": name,
        "comment": comment,
        "chdir": str(folder),
        "output": f"{folder}/{LOG}",
        "time": site.walltime(walltime),
        "nodes": "1",
        "cpus-per-task": str(settings.cpus),
        "mem": None if settings.memory == "none" else settings.memory,
        "gres": gpus if settings.gpus else None,
        "partition": settings.partition,
        "account": settings.account,
        "qos": settings.qos,
    }
    said = [f"--{option}={shlex.quote(value)}" for option, value in options.items() if value]
    own = [settings.options] if settings.options else []
    return ["sbatch", "--parsable", "--requeue", "--open-mode=append", *said, *own, shlex.quote(f"{folder}/{SCRIPT}")]


def describe(job: PartitionJob) -> str:
    """Return, for example, `sample paraphrased 0000-0019 to 0040-0059: dot_products and 2 more`."""
    where = " ".join([job.study.name, *job.settings])
    partitions = [partition for partition in job.partitions if partition]
    span = f" {partitions[0]}" if partitions else ""
    span += f" to {partitions[-1]}" if len(partitions) > 1 else ""
    others = f" and {len(job.keys) - 1} more" if len(job.keys) > 1 else ""
    return f"{where}{span}: {job.keys[0].name}{others}"


def archive(files: Mapping[str, bytes]) -> bytes:
    """Return a tar archive of these files (name -> content), readable by their owner only."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as writer:
        for name, content in files.items():
            header = tarfile.TarInfo(name)
            header.size, header.mode = len(content), 0o600
            writer.addfile(header, io.BytesIO(content))
    return buffer.getvalue()


def walltime(job: PartitionJob, site: Site) -> timedelta:
    """Return the walltime that a job requests if `SLURM_TIME` is not set: predicted, or else the default.

    Raises:
        GradsimError: The job's inputs cannot be read, or do not fit the site's nodes.
    """
    known = read_site_rates(job.store(), site.queue, job.model.precision)
    if site.settings.walltime or known is None or job.kind != "gradients":
        return DEFAULT_WALLTIME
    return with_margin(predicted_seconds(Question(job=job, device=site.device, rates=known)))


def with_margin(seconds: float) -> timedelta:
    """Return the walltime for a prediction in seconds."""
    return _START + timedelta(seconds=_MARGIN * seconds)
