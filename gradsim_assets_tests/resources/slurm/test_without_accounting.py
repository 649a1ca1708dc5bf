"""A cluster whose Slurm keeps no accounting: jobs are believed by their own results, never by default."""

import pytest

pytestmark = pytest.mark.slow


@pytest.fixture
def runs(lab_without_accounting, new_runs, tmp_path):
    return new_runs(lab_without_accounting, tmp_path)


def test_a_job_that_ends_well_counts(runs):
    outcome = runs.run()
    assert outcome["materialized"] == 1
    assert "slurm_state" not in outcome["result"]["measured"]


def test_a_job_that_leaves_no_result_does_not(runs):
    outcome = runs.run("sys.exit(7)")
    assert "ended with exit status 7; its log says why" in outcome["failure"]
    assert outcome["materialized"] == 0


def test_nor_one_that_slurm_has_forgotten(runs, lab_without_accounting):
    run = runs.start("os.kill(os.getppid(), signal.SIGKILL); time.sleep(2)")
    assert "ended before its script was finished" in run.outcome()["failure"]
