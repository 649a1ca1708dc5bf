"""A job that lives without its run is taken up by the next that wants the same, and by no other."""

import signal

import pytest

pytestmark = pytest.mark.slow


def slowly(seconds: int) -> str:
    return f"time.sleep({seconds}); leave(measured={{'partition': job['partitions'][0]}})"


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT], ids=["killed", "interrupted"])
def test_a_living_job_of_a_run_that_ended(runs, number):
    first = runs.start(slowly(10))
    job = runs.wait_for("RUNNING")
    first.end(number)
    outcome = runs.run(slowly(10))
    assert f"Slurm job {job} is already computing this; attached to it" in outcome["said"][0]
    assert outcome["result"]["measured"]["slurm_job_id"] == int(job)
    assert list(runs.submitted()) == [job]


def test_a_job_that_ended_well_while_nobody_looked(runs):
    first = runs.start(slowly(4))
    runs.wait_for("RUNNING")
    first.end(signal.SIGKILL)
    job = runs.wait_for("COMPLETED")
    outcome = runs.run()
    assert f"Slurm job {job} finished while nothing was watching; using its result" in outcome["said"][0]
    assert outcome["materialized"] == 1
    assert list(runs.submitted()) == [job]


def test_none_that_failed_meanwhile(runs):
    first = runs.start("time.sleep(4); leave(error='too bad'); sys.exit(3)")
    runs.wait_for("RUNNING")
    first.end(signal.SIGKILL)
    runs.wait_for("FAILED")
    assert runs.run()["materialized"] == 1
    assert len(runs.submitted()) == 2


def test_never_another_partitions(runs):
    orphan = runs.start(slowly(30), partition="0000-0001")
    runs.wait_for("RUNNING")
    orphan.end(signal.SIGKILL)
    outcome = runs.run(partition="0002-0003")
    assert outcome["result"]["partitions"] == ["0002-0003"]
    assert outcome["result"]["measured"]["partition"] == "0002-0003"
    assert len(runs.submitted()) == 2


def test_one_job_serves_two_runs_at_a_time(runs):
    both = [runs.start(slowly(6)) for _ in range(2)]
    assert [run.outcome()["materialized"] for run in both] == [1, 1]
    assert len(runs.submitted()) == 1


def test_a_job_that_somebody_cancels_fails_its_run(runs, lab):
    run = runs.start("time.sleep(600)")
    job = runs.wait_for("RUNNING")
    lab.run("scancel", job)
    assert f"Slurm job {job} was canceled on the cluster; run it again to continue" in run.outcome()["failure"]
