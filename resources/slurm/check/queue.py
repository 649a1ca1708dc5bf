"""Checks of the partition, the job options (with `sbatch --test-only`), and the accounting."""

import re
from datetime import timedelta

from gradsim.errors import ClusterError
from resources.diagnosis import Doubt
from resources.slurm.check.cluster import Cluster
from resources.slurm.connection import Answer
from resources.slurm.failures import is_away, refusal
from resources.slurm.script import DEFAULT_WALLTIME, sbatch_command
from resources.slurm.site import Site


def submission(cluster: Cluster, site: Site, walltime: timedelta) -> list[str]:
    """Return the `sbatch` command of a job in the checks' folder, with the same options as the site's other jobs."""
    return sbatch_command(site, walltime, cluster.name, cluster.folder, "gradsim cluster check")


def partition(cluster: Cluster) -> str:
    """Check that the partition exists, is up, and allows the walltime that jobs request."""
    answer = cluster.ask("timeout 30 sinfo -a -h -o '%P|%a|%l|%D'")
    _refuse_silence(answer)
    rows = [line.split("|") for line in answer.text.splitlines()]
    wanted = cluster.site.settings.partition
    names = wanted.split(",") if wanted else [row[0].rstrip("*") for row in rows if row[0].endswith("*")]
    there = list(dict.fromkeys(row[0].rstrip("*") for row in rows))
    if missing := [name for name in names if name not in there]:
        raise ClusterError(
            f"there is no partition {', '.join(missing)}; set SLURM_PARTITION to one of {_listed(there)}"
        )
    if not names:
        raise ClusterError(f"the cluster has no default partition; set SLURM_PARTITION to one of {_listed(there)}")
    chosen = [row for row in rows if row[0].rstrip("*") in names]
    if not any(row[1] == "up" for row in chosen):
        raise ClusterError(f"partition {', '.join(names)} is {chosen[0][1]}; wait, or set SLURM_PARTITION to another")
    _refuse_long_walltime(cluster.site.walltime(DEFAULT_WALLTIME), chosen)
    nodes = sum(int(row[3]) for row in chosen)
    return f"{', '.join(names)}: {nodes} nodes, jobs of up to {chosen[0][2]}"


def _refuse_long_walltime(asked: str, rows: list[list[str]]) -> None:
    """Raise if the partition's time limit is too short: Slurm may accept such a job and never start it."""
    limits = [row[2] for row in rows]
    if all(limit != "infinite" and _seconds(limit) < _seconds(asked) for limit in limits):
        raise ClusterError(
            f"jobs request {asked}, the partition allows {limits[0]}; set SLURM_TIME, or another SLURM_PARTITION"
        )


def _seconds(walltime: str) -> int:
    """Return the seconds of Slurm's `days-hours:minutes:seconds`."""
    days, _, clock = walltime.rpartition("-")
    total = 0
    for part in clock.split(":"):
        total = 60 * total + int(part)
    return 86400 * int(days or 0) + total


def options(cluster: Cluster) -> str:
    """Check that Slurm accepts a job with the site's account, quality of service and resource requests."""
    # The folder does not exist yet, so the script comes from standard input.
    sbatch, *said, _ = submission(cluster, cluster.site, DEFAULT_WALLTIME)
    answer = cluster.ask(f"printf '#!/bin/bash\\ntrue\\n' | {' '.join([sbatch, '--test-only', *said])}")
    _refuse_silence(answer)
    if answer.status:
        raise ClusterError(refusal(answer, cluster.site))
    start = re.search(r"to start at (\S+)", answer.errors)
    settings = cluster.site.settings
    named = [f"{name} {value}" for name, value in (("account", settings.account), ("QOS", settings.qos)) if value]
    expected = f"Slurm would accept a job and start it at {start[1].replace('T', ' ')}" if start else "accepted"
    return ", ".join([expected, *named])


def accounting(cluster: Cluster) -> str:
    """Check that `sacct` reports resource usage; nothing depends on it."""
    answer = cluster.ask('timeout 30 sacct -n -X -u "$(id -un)" -S now-1hours -o JobID')
    if answer.status:
        raise Doubt(
            f"sacct does not answer ({answer.complaint}); jobs run without it: only resource usage is not shown"
        )
    return "sacct answers"


def _refuse_silence(answer: Answer) -> None:
    silent = answer.status == 124  # exit status of `timeout`
    if silent or is_away(answer):
        said = "within 30 s" if silent else f"({answer.complaint})"
        raise ClusterError(
            f"Slurm's controller does not answer {said}; try again later, or ask the cluster's operators"
        )


def _listed(names: list[str]) -> str:
    return ", ".join(names) or "none"
