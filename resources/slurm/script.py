"""The batch script of a job, and the `sbatch` command that submits it."""

import shlex
from collections.abc import Mapping
from datetime import timedelta
from pathlib import PurePosixPath
from types import MappingProxyType

from gradsim.environment import JOB_VARIABLES
from gradsim.partition_job import PartitionJob
from resources.slurm.job_state import LOG, RESULT, STATUS
from resources.slurm.site import Site

JOB_FILE, SCRIPT = "job.json", "job.sh"

# What the code of an environment says of itself.
PRINT_CODE_VERSION = "from gradsim.partition_job import code_version; print(code_version())"

assert RESULT == "job.result.json", "the job leaves its result beside the job file"


def batch_script(site: Site, job: PartitionJob, folder: PurePosixPath, variables: Mapping[str, str]) -> str:
    """The script: what the site wants run first, then the same command that runs on one machine.

    Args:
        site: the cluster.
        job: what is computed.
        folder: where the job file lies on the cluster.
        variables: of the job's environment.
    """
    return python_script(site, describe(job), folder, f"-m gradsim.partition_job {JOB_FILE}", variables)


def python_script(
    site: Site, title: str, folder: PurePosixPath, arguments: str, variables: Mapping[str, str] = MappingProxyType({})
) -> str:
    """A script that runs the site's Python in a folder, and leaves its exit status there.

    Args:
        site: the cluster.
        title: for who reads the script.
        folder: on the cluster.
        arguments: of Python, as the shell reads them.
        variables: of the environment.
    """
    exports = "".join(f"export {name}={shlex.quote(value)}\n" for name, value in variables.items())
    # What the cluster, the user's profile or the site's setup has set is left as it is.
    defaults = "".join(f'export {name}="${{{name}:-{value}}}"\n' for name, value in JOB_VARIABLES.items())
    return (
        "#!/bin/bash\n"
        f"# gradsim: {title}\n"
        f"cd {shlex.quote(str(folder))} || exit 1\n"
        # Of the life before a requeue.
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
    """What the site wants run first, in whole lines."""
    setup = site.settings.setup.strip()
    return f"{setup}\n" if setup else ""


def python_command(site: Site) -> str:
    """The site's Python, in the site's container."""
    return f"{site.settings.container} {shlex.quote(str(site.python))}".strip()


def sbatch_command(site: Site, walltime: timedelta, name: str, folder: PurePosixPath, comment: str) -> list[str]:
    """What submits the script that lies in a folder, with all that the site asks for; quoted for a shell.

    Args:
        site: the cluster.
        walltime: predicted, where the site says none.
        name: of the job.
        folder: on the cluster; takes the log, too.
        comment: for who asks Slurm about the job.
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
    """For example `sample paraphrased 0000-0019 to 0040-0059: dot_products and 2 more`."""
    where = " ".join([job.study.name, *job.settings])
    partitions = [partition for partition in job.partitions if partition]
    span = f" {partitions[0]}" if partitions else ""
    span += f" to {partitions[-1]}" if len(partitions) > 1 else ""
    others = f" and {len(job.keys) - 1} more" if len(job.keys) > 1 else ""
    return f"{where}{span}: {job.keys[0].name}{others}"
