"""A study of LIMA's size on a real Slurm, from the web UI: backfills, their limits, what ends them and what not."""

import os
import signal
import sys

import numpy as np
import polars as pl
import psutil
import pytest

from gradsim.tables.lineage import GRADIENT_TABLES
from gradsim_assets.abandoned import PROCESS
from gradsim_assets_tests.web_ui import ENDED, TERMINATE, serve
from gradsim_assets_tests.workplace import Workplace

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

STUDY, SETTING = "lima_sized", "word_dropout"
SAMPLES, PARTITIONS_PER_JOB, CONCURRENT_JOBS = 988, 3, 2
KEYS = [(STUDY, SETTING, table) for table in GRADIENT_TABLES]


@pytest.fixture(scope="module")
def local(tmp_path_factory):
    """The study, run on this machine."""
    place = Workplace(tmp_path_factory.mktemp("local"))
    place.write_rows("originals.jsonl", place.rows(SAMPLES))
    place.write_study(STUDY, partition_size=100)
    place.gradsim("run", STUDY, "--partition-end", "900")  # a part of the study has no analyses, which are not compared
    place.gradsim("run", STUDY, "--partition-start", "900")
    place.gradsim("combine", STUDY)
    return place


@pytest.fixture(scope="module")
def place(local, tmp_path_factory):
    """The same study without its gradients."""
    place = local.copy(tmp_path_factory.mktemp("cluster"))
    place.delete(*(f"{STUDY}/{SETTING}/{table}/*.parquet" for table in GRADIENT_TABLES))
    place.delete(*(f"{STUDY}/{SETTING}/results/{table}.parquet" for table in GRADIENT_TABLES))
    return place


@pytest.fixture(scope="module")
def slow(tmp_path_factory):
    """A file that holds up jobs while it is there."""
    return tmp_path_factory.mktemp("slow") / "slow"


@pytest.fixture(scope="module")
def variables(lab, place, slow):
    """Of the site."""
    return {
        **lab.variables,
        "GRADSIM_COMPUTE": "slurm",
        "GRADSIM_PARTITIONS_PER_JOB": str(PARTITIONS_PER_JOB),
        "GRADSIM_CONCURRENT_JOBS": str(CONCURRENT_JOBS),
        "SLURM_ENVIRONMENT": sys.prefix,
        "SLURM_DATA": str(place.data),
        "SLURM_CPUS": "1",
        "SLURM_MEM": "2G",
        "SLURM_TIME": "00:20:00",
        "SLURM_SETUP": f"export OMP_NUM_THREADS=1; while [ -e {slow} ]; do sleep 0.2; done",
        "DAGSTER_SLURM_SSH_CONTROL_DIR": f"{lab.folder}/control",
    }


@pytest.fixture(scope="module")
def web(place, variables, wait_until):
    with serve(place, wait_until, **variables) as ui:
        yield ui


@pytest.fixture
def new_jobs(lab):
    """The jobs that were submitted since the test began."""
    before = {job["JobId"] for job in lab.jobs()}
    return lambda: [job for job in lab.jobs() if job["JobId"] not in before]


def partial_files(place):
    return list(place.data.rglob("*.partial"))


def test_a_backfill_of_all_partitions_takes_few_jobs_and_gives_the_numbers_of_this_machine(
    web, place, local, lab, new_jobs, wait_until
):
    launched = web.launch_backfill(KEYS, [partition.key for partition in place.study(STUDY).partitions])
    queued = []

    def has_ended():
        queued.append(len(lab.run("squeue", "-h").splitlines()))
        return web.backfill(launched)["status"] in ENDED

    wait_until(has_ended, "the backfill", seconds=600, pause=0.5)
    backfill = web.backfill(launched)
    assert backfill["status"] == "COMPLETED_SUCCESS"
    assert [run["status"] for run in backfill["runs"]] == ["SUCCESS"] * 4
    assert [job["JobState"] for job in new_jobs()] == ["COMPLETED"] * 4
    assert max(queued) <= CONCURRENT_JOBS
    place.gradsim("combine", STUDY)
    for table in GRADIENT_TABLES:
        key = place.store(STUDY).lineage.key(table, SETTING, "results")
        there, here = (each.store(STUDY).read(key) for each in (place, local))
        names = [name for name, dtype in here.schema.items() if not dtype.is_float()]
        assert there.select(names).equals(here.select(names)), table
        for name in set(here.columns) - set(names):
            assert (there[name] - here[name]).abs().max() <= 1e-5 * here[name].abs().max(), (table, name)


def test_what_is_fresh_is_not_sent_again(web, new_jobs, wait_until):
    launched = web.launch_backfill(KEYS[:1], ["0200-0299"])
    wait_until(lambda: web.backfill(launched)["status"] in ENDED, "the backfill", pause=1)
    assert web.backfill(launched)["status"] == "COMPLETED_SUCCESS"
    assert new_jobs() == []


def test_terminating_a_run_cancels_its_job(web, place, lab, slow, wait_until):
    place.delete(f"{STUDY}/{SETTING}/dot_products/0000-0099.parquet")
    slow.touch()
    launched = web.launch_backfill(KEYS[:1], ["0000-0099"])
    wait_until(lambda: lab.run("squeue", "-h", "-t", "running"), "the job", pause=0.5)
    (run,) = web.backfill(launched)["runs"]
    answer = web.query(TERMINATE, run=run["id"])["terminateRun"]
    assert answer["__typename"] == "TerminateRunSuccess", answer
    wait_until(lambda: not lab.run("squeue", "-h"), "the job's end", seconds=15, pause=0.2)
    slow.unlink()
    wait_until(lambda: web.backfill(launched)["runs"][0]["status"] == "CANCELED", "the run's end", pause=0.5)
    assert partial_files(place) == []
    assert not list(place.data.glob(f"{STUDY}/{SETTING}/dot_products/0000-0099.parquet"))


def test_a_run_whose_process_is_killed_is_run_again_and_takes_up_its_job(web, place, slow, new_jobs, wait_until):
    place.delete(f"{STUDY}/{SETTING}/dot_products/0100-0199.parquet")
    slow.touch()
    launched = web.launch_backfill(KEYS[:1], ["0100-0199"])
    wait_until(lambda: [job["JobState"] for job in new_jobs()] == ["RUNNING"], "the job", pause=0.5)
    (run,) = web.backfill(launched)["runs"]
    (process,) = (each.tags[PROCESS] for each in place.runs() if each.run_id == run["id"])
    os.kill(int(process), signal.SIGKILL)
    wait_until(lambda: len(web.backfill(launched)["runs"]) == 2, "the retry", pause=1)
    slow.unlink()

    def statuses():
        return {each["status"] for each in web.backfill(launched)["runs"]}

    wait_until(lambda: statuses() == {"FAILURE", "SUCCESS"}, "the retry's end", pause=1)
    assert len(new_jobs()) == 1
    assert list(place.data.glob(f"{STUDY}/{SETTING}/dot_products/0100-0199.parquet"))


def test_without_a_shared_file_system_results_come_back(place, local, variables, new_jobs):
    place.delete(f"{STUDY}/{SETTING}/dot_products/0900-0987.parquet")
    output = place.gradsim(
        "run", STUDY, "--computation", "dot-product", "--partition", "0900-0987", **{**variables, "SLURM_DATA": ""}
    )
    assert "results copied from" in output
    assert len(new_jobs()) == 1
    path = f"{STUDY}/{SETTING}/dot_products/0900-0987.parquet"
    here, there = (pl.read_parquet(each.data / path)["dot"].to_numpy() for each in (local, place))
    assert np.abs(here - there).max() <= 1e-5 * np.abs(here).max()


def test_a_dry_run_shows_the_script_and_submits_nothing(place, variables, new_jobs):
    place.delete(f"{STUDY}/{SETTING}/dot_products/0900-0987.parquet")
    output = place.gradsim(
        "run", STUDY, "--computation", "dot-product", "--partition", "0900-0987", "--dry-run", **variables
    )
    assert "sbatch --parsable --requeue" in output
    assert "--time=00:20:00 --nodes=1 --cpus-per-task=1 --mem=2G --partition=gpu" in output
    assert "-m gradsim.partition_job job.json" in output
    assert new_jobs() == []


@pytest.fixture
def long(tmp_path):
    """A study whose gradients take a job a while, partition after partition; its model was trained here."""
    place = Workplace(tmp_path)
    place.write_rows("originals.jsonl", place.rows(80, repeat=45))
    place.write_study(top_k="all", partition_size=8, projections=[])
    place.gradsim("run", "tiny", "--computation", "dot-product", "--partition", "0000-0007")
    place.delete(f"tiny/{SETTING}/*/0000-0007.parquet")
    return place


def partition_jobs(lab):
    """Processes on a lab's nodes that compute partitions."""
    found = []
    for process in psutil.process_iter(["cmdline", "environ"]):
        is_job = "gradsim.partition_job" in (process.info["cmdline"] or [])
        if is_job and str(lab.folder) in (process.info["environ"] or {}).get("SLURM_CONF", ""):
            found.append(process)
    return found


def test_a_node_that_dies_in_the_middle_costs_no_partition_that_was_finished(
    long, variables, lab, new_jobs, wait_until
):
    folder = long.data / "tiny" / SETTING / "dot_products"
    there = {**variables, "SLURM_DATA": str(long.data)}
    process = long.start("gradsim", "run", "tiny", "--computation", "dot-product", **there)
    wait_until(lambda: partition_jobs(lab), "the job's process")
    (working,) = partition_jobs(lab)
    wait_until(lambda: list(folder.glob("[0-9]*.parquet")) or process.poll(), "the first partition", pause=0.002)
    # It must not come to its end while somebody makes ready to kill its node.
    working.suspend()
    (job,) = new_jobs()
    lab.kill_node(job["BatchHost"])
    finished = {path: path.stat().st_mtime_ns for path in folder.glob("[0-9]*.parquet")}
    assert 1 <= len(finished) < 10, "it was not the middle"
    output, _ = process.communicate(timeout=180)
    assert process.returncode == 0, output
    (job,) = new_jobs()
    assert (job["JobState"], job["Restarts"]) == ("COMPLETED", "1")
    assert len(list(folder.glob("[0-9]*.parquet"))) == 10
    assert finished.items() <= {path: path.stat().st_mtime_ns for path in folder.glob("[0-9]*.parquet")}.items()
