"""The faults of dagster-slurm's client that ours corrects, on the stock one: a release that fixes one fails here."""

import os
import signal

import dagster as dg
import pytest

pytestmark = pytest.mark.slow

# Says which partition it computed, then goes on for a while.
PAYLOAD = """
import sys, time
from pathlib import Path
from dagster_pipes import open_dagster_pipes
with open_dagster_pipes() as pipes:
    Path({folder!r}, f"{{pipes.partition_key}} was computed").touch()
    time.sleep({seconds})
sys.exit({status})
"""


FIXED = "dagster-slurm has fixed this: drop the correction"


@pytest.fixture
def start(tmp_path):
    """Has a payload run for a partition, by the stock client."""

    def start(runs, partition, seconds=0, status=0):
        payload = tmp_path / f"{partition}.py"
        payload.write_text(PAYLOAD.format(folder=str(tmp_path), seconds=seconds, status=status), encoding="utf-8")
        return runs.drive("stock_driver.py", str(payload), tmp_path / f"outcome-{partition}.json")

    return start


def test_it_works_where_nothing_happens(runs, start, tmp_path):
    assert start(runs, "A").outcome()["materialized"] == 1
    assert (tmp_path / "A was computed").exists()


def test_it_records_a_job_of_another_partition(runs, start, tmp_path, wait_until):
    orphan = start(runs, "A", seconds=60)
    job = runs.wait_for("RUNNING")
    # The client notes a job some time after it has submitted it, and takes up none that it did not note.
    with runs.instance() as instance:
        wait_until(lambda: instance.get_runs(dg.RunsFilter(tags={"dagster_slurm/job_id": job})), "the job's tag")
    orphan.end(signal.SIGKILL)
    # As Dagster marks a run whose process is gone.
    runs.mark_runs_failed()
    assert start(runs, "B").outcome()["materialized"] == 1
    assert not (tmp_path / "B was computed").exists(), FIXED


def test_it_takes_an_outage_of_ssh_for_the_end(runs, lab, start):
    run = start(runs, "A", seconds=20)
    job = runs.wait_for("RUNNING")
    lab.stop("sshd")
    outcome = run.outcome()
    assert outcome["materialized"] == 0, FIXED
    assert runs.submitted()[job] == "RUNNING", "an orphan"


def test_a_failed_job_that_slurm_forgot_is_no_success(lab_without_accounting, new_runs, start, tmp_path):
    """Ours, asleep while Slurm forgets its job, beside the stock one, which sees the job end."""
    folders = tmp_path / "ours", tmp_path / "stock"
    for folder in folders:
        folder.mkdir()
    ours, stock = (new_runs(lab_without_accounting, folder) for folder in folders)
    run = ours.start("time.sleep(3); sys.exit(7)")
    ours.wait_for("RUNNING")
    os.kill(run.process, signal.SIGSTOP)
    stock_run = start(stock, "A", status=7)
    lab_without_accounting.wait_for(lambda: not ours.submitted(), 180)
    os.kill(run.process, signal.SIGCONT)
    outcome = run.outcome()
    assert "ended with exit status 7; its log says why" in outcome["failure"]
    assert outcome["materialized"] == 0
    assert stock_run.outcome(400)["materialized"] == 1, FIXED
