"""A short job on a compute node: does it start, and does it find there what every job needs?"""

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

# Enough to import torch from a cold network file system, and short enough to slip in between long jobs.
WALLTIME = timedelta(minutes=10)

_PROBE, _FOUND = "probe.py", "found.json"


def job(cluster: Cluster) -> str:
    """A job runs, and finds our folder, the environment, the data root and its GPUs."""
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
    """Wait until a job has ended; its log is in what is returned."""
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
    """On a job that will not start, or not soon."""
    if look.will_never_start:
        raise ClusterError(
            f"Slurm job {job_id} would never start ({look.reason}); ask for what the partition, account and QOS allow: "
            "SLURM_TIME, SLURM_CPUS, SLURM_MEM, SLURM_GPUS_PER_NODE"
        )
    if waited > cluster.seconds_to_start:
        reason = look.reason or "no reason given"
        raise Doubt(
            f"Slurm job {job_id} did not start in {waited:.0f} s ({reason}) and is canceled, which is no error of the "
            "settings; wait longer: --wait SECONDS"
        )


def _found(cluster: Cluster, job_id: int, look: Look) -> dict[str, Any]:
    """What the job wrote."""
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
            "compute nodes see under the same name"
        )
    said = end.log.splitlines()[-1] if end.log else "it said nothing"
    raise ClusterError(f"{explain(end).text.split(';')[0]}{node}: {said}; mend SLURM_SETUP or the environment")


def _refuse_unshared(cluster: Cluster, where: str, found: dict[str, Any]) -> None:
    if cluster.site.shared_data is None:
        return
    fix = f"SLURM_DATA must be compute nodes' name of the folder GRADSIM_DATA ({cluster.token_folder.parent}), too"
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
        fix = "let the container see GPUs (apptainer exec --nv), and have a CUDA build of torch there"
    elif found["cuda"] is None:
        fix = "that is a build without CUDA: install one with it (PIP_INDEX_URL in SLURM_SETUP)"
    else:
        fix = f"the node's driver may be older than CUDA {found['cuda']} needs: see nvidia-smi there"
    raise ClusterError(f"{where} asked for {asked} GPU and torch {found['torch']} sees {len(found['gpus'])}; {fix}")
