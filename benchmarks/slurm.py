"""Measure the overhead of a Slurm job: `python benchmarks/slurm.py`. Starts its own Slurm; needs root.

Each round measures in turn: Slurm alone (`sbatch` of `true`, until the job is reported as completed), a gradsim step
with a partition job that finds everything fresh, and a step of dagster-slurm's client with an empty payload.
"""

import argparse
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import dagster as dg
from dagster_slurm import BashLauncher, SlurmPipesClient

from gradsim.environment import project_root, read_environment
from gradsim.partition_job import PartitionJob
from gradsim.study import load_study
from gradsim.tables import Store
from gradsim_assets.assets.gradients import make_job
from resources.slurm.compute import SlurmCompute
from resources.slurm.site import Site

PAYLOAD = "from dagster_pipes import open_dagster_pipes\nwith open_dagster_pipes():\n    pass\n"


def main() -> int:
    """Print every round, and the medians."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory(prefix="b-", dir="/tmp") as folder, lab(Path(folder)):
        job = fresh_job(Path(folder))
        payload = Path(folder) / "payload.py"
        payload.write_text(PAYLOAD, encoding="utf-8")
        ways: dict[str, Callable[[], float]] = {
            "Slurm alone": slurm_alone,
            "gradsim": lambda: step_seconds(lambda context: run_ours(context, job)),
            "dagster-slurm": lambda: step_seconds(lambda context: run_stock(context, payload)),
        }
        seconds: dict[str, list[float]] = {name: [] for name in ways}
        for number in range(rounds):
            for name, measure in ways.items():
                seconds[name].append(measure())
            print(f"round {number + 1}: " + ", ".join(f"{name} {times[-1]:.2f} s" for name, times in seconds.items()))
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    for name, median in medians.items():
        print(f"{name}: median {median:.2f} s, {median - medians['Slurm alone']:.2f} s more than Slurm alone")
    return 0


@contextmanager
def lab(folder: Path) -> Iterator[None]:
    """Start Slurm on this machine, and set its variables in the environment."""
    script = [sys.executable, str(project_root() / "scripts/slurm_lab")]
    subprocess.run([*script, "start", str(folder / "lab")], check=True)
    try:
        text = (folder / "lab" / "env.sh").read_text(encoding="utf-8")
        os.environ |= dict(re.findall(r"export (\w+)=(.*)", text))
        os.environ |= {
            "GRADSIM_DATA": str(folder / "data"),
            "DAGSTER_HOME": str(folder / "dagster"),
            "MT_SAMPLE_SIZE": "20",
            "SLURM_DATA": str(folder / "data"),
            "SLURM_ENVIRONMENT": sys.prefix,
            "SLURM_TIME": "00:10:00",
            "DAGSTER_SLURM_SSH_CONTROL_DIR": str(folder / "ssh"),
        }
        yield
    finally:
        subprocess.run([*script, "stop", str(folder / "lab"), "--purge"], check=False, stdout=subprocess.DEVNULL)


def fresh_job(folder: Path) -> PartitionJob:
    """Return a job that finds all its tables fresh."""
    command = [str(Path(sys.executable).with_name("gradsim")), "run", "sample", "--setting", "word_dropout"]
    subprocess.run([*command, "--computation", "dot-product"], check=True, stdout=subprocess.DEVNULL)
    study = load_study("sample", read_environment())
    store = Store(folder / "data", study)
    key = store.lineage.key("dot_products", "word_dropout")
    return make_job(store, [key], store.partitions(key), SlurmCompute(), force=False)


def slurm_alone() -> float:
    """Return the seconds from `sbatch` to the end of an empty job, polled ten times a second."""
    started = time.perf_counter()
    command = ["sbatch", "--parsable", "-o", "/dev/null", "--mem=300M", "--wrap", "true"]
    number = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    while (
        "COMPLETED"
        not in subprocess.run(
            ["squeue", "-h", "-t", "all", "-j", number, "-o", "%T"], check=True, capture_output=True, text=True
        ).stdout
    ):
        time.sleep(0.1)
    return time.perf_counter() - started


def step_seconds(function: Callable[[dg.AssetExecutionContext], None]) -> float:
    """Return the seconds of a step that calls the function, in its own run."""

    @dg.asset
    def step(context: dg.AssetExecutionContext) -> dg.MaterializeResult[None]:
        function(context)
        return dg.MaterializeResult()

    with dg.DagsterInstance.ephemeral() as instance:
        result = dg.materialize([step], instance=instance)
    duration: float = next(event for event in result.all_events if event.is_step_success).step_success_data.duration_ms
    return duration / 1000


def run_ours(context: dg.AssetExecutionContext, job: PartitionJob) -> None:
    """Run a partition job with nothing to do."""
    result = SlurmCompute().perform_there(context, job).result
    assert result is not None
    assert result.computed == {}


def run_stock(context: dg.AssetExecutionContext, payload: Path) -> None:
    """Run an empty script with dagster-slurm's own client."""
    site = Site.read()
    deployed = payload.parent / "deployed"  # the layout that the client expects
    if not deployed.exists():
        deployed.mkdir()
        (deployed / "env").symlink_to(sys.prefix)
        (deployed / "activate.sh").write_text(f"export PATH={deployed}/env/bin:$PATH\n", encoding="utf-8")
    client = SlurmPipesClient(site.resource(), BashLauncher(), pre_deployed_env_path=str(deployed))
    client.run(context=context, payload_path=str(payload))


if __name__ == "__main__":
    sys.exit(main())
