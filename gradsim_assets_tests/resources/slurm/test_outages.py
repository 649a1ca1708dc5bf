"""What is away for a while is waited for, and a job that loses its node runs again: nobody has to do anything."""

import os
import time

import pytest

from gradsim_assets_tests.programs import has_ended

pytestmark = pytest.mark.slow

LEAVE = "leave(measured={'partition': job['partitions'][0]})"

# The first life of a job lasts until something ends it.
ONCE = f"first = not Path('seen').exists(); Path('seen').touch(); time.sleep(600 * first); {LEAVE}"

# A minute where somebody has the time.
SECONDS = float(os.environ.get("GRADSIM_OUTAGE_SECONDS", "15"))


@pytest.mark.parametrize(("daemon", "complaint"), [("sshd", "cannot be reached"), ("slurmctld", "does not answer")])
def test_an_outage_while_a_job_runs(runs, lab, daemon, complaint):
    run = runs.start(f"time.sleep(8); {LEAVE}")
    job = runs.wait_for("RUNNING")
    lab.stop(daemon)
    time.sleep(SECONDS)
    assert not has_ended(run.process)
    lab.start(daemon)
    outcome = run.outcome()
    assert outcome["materialized"] == 1, outcome
    assert any(complaint in text for text in outcome["said"])
    assert list(runs.submitted()) == [job]


@pytest.mark.parametrize("daemon", ["sshd", "slurmctld"])
def test_an_outage_before_a_job_is_submitted(runs, lab, daemon):
    lab.stop(daemon)
    run = runs.start()
    time.sleep(SECONDS)
    lab.start(daemon)
    assert run.outcome()["materialized"] == 1
    assert len(runs.submitted()) == 1


def test_an_outage_of_accounting_costs_its_numbers_alone(runs, lab):
    lab.stop("slurmdbd")
    outcome = runs.run()
    assert outcome["materialized"] == 1
    assert "slurm_state" not in outcome["result"]["measured"]


def test_a_job_whose_node_dies_is_requeued(runs, lab):
    run = runs.start(ONCE)
    job = runs.wait_for("RUNNING")
    lab.kill_node(lab.job(job)["BatchHost"])
    outcome = run.outcome()
    assert outcome["materialized"] == 1, outcome
    assert outcome["result"]["measured"]["slurm_job_id"] == int(job)
    assert lab.job(job)["Restarts"] == "1"
    assert list(runs.submitted()) == [job]


def test_a_job_that_may_not_be_requeued_is_submitted_anew(runs, lab):
    run = runs.start(ONCE)
    job = runs.wait_for("RUNNING")
    lab.run("scontrol", "update", f"JobId={job}", "Requeue=0")
    lab.kill_node(lab.job(job)["BatchHost"])
    outcome = run.outcome()
    assert (outcome["materialized"], outcome["retries"]) == (1, 1), outcome
    (other,) = set(runs.submitted()) - {job}
    assert runs.submitted() == {job: "NODE_FAIL", other: "COMPLETED"}
    assert any(text.startswith(f"Slurm job {job}: node_fail") for text in outcome["said"])
    assert outcome["result"]["measured"]["slurm_job_id"] == int(other)


def test_a_job_that_gives_way_is_requeued(runs, lab):
    run = runs.start(ONCE, SLURM_PARTITION="low")
    job = runs.wait_for("RUNNING")
    lab.submit("sleep 5", "--partition=high", "--nodes=2", "--exclusive")
    outcome = run.outcome()
    assert outcome["materialized"] == 1, outcome
    assert lab.job(job)["Restarts"] == "1"
