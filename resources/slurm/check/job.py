"""A short test job on a compute node: whether it starts, and finds everything that a partition job needs."""

import json
import shlex
import time
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

from gradsim.errors import ClusterError
from gradsim.partition_job import code_version
from resources.diagnosis import Doubt
from resources.slurm.check import probe
from resources.slurm.check.cluster import Cluster
from resources.slurm.check.places import NODE, holds_token
from resources.slurm.check.queue import submission
from resources.slurm.failures import explain, refusal
from resources.slurm.job_state import Look, end_command, job_number, look_command, parse_end, parse_look
from resources.slurm.script import SCRIPT, python_script

# Long enough to import torch from a cold network file system, short enough for Slurm to backfill.
WALLTIME = timedelta(minutes=10)

_PROBE, _FOUND = "probe.py", "found.json"


def job(cluster: Cluster) -> str:
    """Check that a job runs, and finds the job folder, the environment, the data root and its GPUs."""
    job_id = _submit(cluster)
    began = time.monotonic()
    look = _wait(cluster, job_id)
    found = _found(cluster, job_id, look)
    where = f"Slurm job {job_id} on node {found['node']}"
    if found["code_version"] != code_version():
        raise ClusterError(f"{where} has gradsim {found['code_version']}, here is {code_version()}; install it there")
    _refuse_unshared(cluster, where, found)
    _refuse_missing_gpus(cluster, where, found)
    memory = f"{found['memory_mb'] / 1024:.1f} GB" if found["memory_mb"] else "memory as the cluster gives it"
    gpus = ", ".join(found["gpus"]) or "no GPU"
    seconds = time.monotonic() - began
    return f"node {found['node']}: {found['cpus']} CPUs, {memory}, torch {found['torch']}, {gpus} ({seconds:.0f} s)"


def _submit(cluster: Cluster) -> int:
    site = cluster.site
    data = str(site.shared_data / cluster.token_folder.name) if site.shared_data else ""
    arguments = shlex.join([_PROBE, data, cluster.name, _FOUND])
    cluster.write(
        {
            _PROBE: Path(probe.__file__).read_text(encoding="utf-8"),
            SCRIPT: python_script(site, "gradsim cluster check", cluster.folder, arguments),
        }
    )
    brief = replace(site, settings=site.settings.model_copy(update={"walltime": None}))
    cluster.submitted = True
    answer = cluster.ask(f"umask 077; {' '.join(submission(cluster, brief, WALLTIME))}")
    if answer.status:
        raise ClusterError(refusal(answer, site))
    return job_number(answer)


def _wait(cluster: Cluster, job_id: int) -> Look:
    """Wait until a job has ended, and return the last look at it, with its whole log."""
    began = time.monotonic()
    while True:
        look = parse_look(cluster.ask(look_command(cluster.folder, job_id, 0, 0)))
        if look.has_ended:
            return look
        waited = time.monotonic() - began
        state = (look.state or "unknown").lower()
        if look.state in {"PENDING", None}:
            _give_up(cluster, job_id, look, waited)
        because = f" ({look.reason})" if look.reason not in {"", "None"} else ""
        cluster.say(f"Slurm job {job_id} is {state}{because}: {waited:.0f} s")
        time.sleep(cluster.site.settings.poll_seconds)


def _give_up(cluster: Cluster, job_id: int, look: Look, waited: float) -> None:
    """Raise if a pending job will never start, or has waited longer than `seconds_to_start`."""
    if look.will_never_start:
        raise ClusterError(look.why_never(job_id))
    if waited > cluster.seconds_to_start:
        reason = look.reason or "no reason given"
        raise Doubt(
            f"Slurm job {job_id} did not start in {waited:.0f} s ({reason}) and was canceled, which does not mean that "
            "the settings are wrong; wait longer: --wait SECONDS"
        )


def _found(cluster: Cluster, job_id: int, look: Look) -> dict[str, Any]:
    """Return what the probe found on the node."""
    path = shlex.quote(str(cluster.folder / _FOUND))
    if look.state in {"COMPLETED", ""}:
        cluster.is_seen(
            lambda: cluster.ask(f"ls {shlex.quote(str(cluster.folder))} >/dev/null; test -s {path}").status == 0
        )
    answer = cluster.ask(f"cat {path}")
    if answer.status == 0:
        found: dict[str, Any] = json.loads(answer.output)
        return found
    end = parse_end(cluster.ask(end_command(cluster.folder, job_id), timeout=120), job_id, look.state or "")
    node = f" on node {end.node}" if end.node else ""
    if not end.log and end.exit_status is None:
        raise ClusterError(
            f"Slurm job {job_id}{node} left nothing in {cluster.folder}; SLURM_REMOTE_BASE must be a folder that "
            "compute nodes share under the same path"
        )
    said = end.log.splitlines()[-1] if end.log else "its log is empty"
    raise ClusterError(f"{explain(end).text.split(';')[0]}{node}: {said}; fix SLURM_SETUP or the environment")


def _refuse_unshared(cluster: Cluster, where: str, found: dict[str, Any]) -> None:
    if cluster.site.shared_data is None:
        return
    fix = f"SLURM_DATA must be the path of GRADSIM_DATA ({cluster.token_folder.parent}) on compute nodes, too"
    if found["data"]:
        raise ClusterError(f"{where} does not see the data root ({found['data']}); {fix}")
    if not cluster.is_seen(lambda: holds_token(cluster, NODE)):
        raise ClusterError(f"what {where} wrote into the data root cannot be read here; {fix}")


def _refuse_missing_gpus(cluster: Cluster, where: str, found: dict[str, Any]) -> None:
    asked = cluster.site.settings.gpus
    if asked and found["gpu_trouble"]:
        raise ClusterError(
            f"{where}: its GPU does not work ({found['gpu_trouble']}); install a torch build for it there"
        )
    if len(found["gpus"]) >= asked:
        return
    if cluster.site.settings.container:
        fix = "give the container access to GPUs (apptainer exec --nv), and install a CUDA build of torch in it"
    elif found["cuda"] is None:
        fix = "this build has no CUDA support: install one that has (PIP_INDEX_URL in SLURM_SETUP)"
    else:
        fix = f"the node's driver may be too old for CUDA {found['cuda']}: see nvidia-smi there"
    raise ClusterError(f"{where} requested {asked} GPU and torch {found['torch']} sees {len(found['gpus'])}; {fix}")
