"""The batch script of a partition job: what `sbatch` is given."""

import shlex
from collections.abc import Mapping
from pathlib import PurePosixPath

from gradsim.partition_job import PartitionJob
from resources.slurm.job_state import RESULT, STATUS
from resources.slurm.site import Site

JOB_FILE, SCRIPT = "job.json", "job.sh"

assert RESULT == "job.result.json", "the job leaves its result beside the job file"


def batch_script(site: Site, job: PartitionJob, folder: PurePosixPath, variables: Mapping[str, str]) -> str:
    """The script: what the site wants run first, then the same command that runs on one machine.

    Args:
        site: the cluster.
        job: what is computed.
        folder: where the job file lies on the cluster.
        variables: of the job's environment.
    """
    exports = "".join(f"export {name}={shlex.quote(value)}\n" for name, value in variables.items())
    setup = f"{site.settings.setup.strip()}\n" if site.settings.setup.strip() else ""
    command = f"{site.settings.container} {shlex.quote(str(site.python))}".strip()
    return (
        "#!/bin/bash\n"
        f"# gradsim: {describe(job)}\n"
        f"cd {shlex.quote(str(folder))} || exit 1\n"
        # Of the life before a requeue.
        f"rm -f {RESULT} {STATUS}\n"
        f"{setup}"
        f"{exports}"
        f"{command} -m gradsim.partition_job {JOB_FILE}\n"
        "status=$?\n"
        f"echo $status > {STATUS}\n"
        "exit $status\n"
    )


def describe(job: PartitionJob) -> str:
    """For example `sample paraphrased 0000-0019 to 0040-0059: dot_products, query_self`."""
    where = " ".join(part for part in (job.study.name, job.setting, job.room) if part)
    partitions = [partition for partition in job.partitions if partition]
    span = f" {partitions[0]}" if partitions else ""
    span += f" to {partitions[-1]}" if len(partitions) > 1 else ""
    return f"{where}{span}: {', '.join(job.tables)}"
