"""How jobs end on a real Slurm, and what is said of it: only what was computed is materialized."""

from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow

WELL = "print('hello from the node'); leave(measured={'passes': 3})"

# What a job does -> what its run says.
FAILURES = {
    "sys.exit(7)": "ended with exit status 7; its log says why",
    "pass": "ended with exit status 0; its log says why",
    "os.kill(os.getppid(), signal.SIGKILL); time.sleep(9)": "ended before its script was finished (by signal 9)",
    "leave(partitions=['0002-0003'])": "the partition job's result does not match the request: ",
    "leave(fingerprints={'rates': 'another'})": "the partition job's result does not match the request: ",
    "path.with_suffix('.result.json').write_text('{\"par')": "ended with exit status 0",
    "leave(); sys.exit(1)": "the partition job failed after it had written its result: Slurm job ",
    "leave(error='sample s01: fix it'); sys.exit(3)": "sample s01: fix it",
    "leave(traceback='Traceback:\\n  File x\\nValueError: boom\\n'); sys.exit(1)": "crashed: ValueError: boom",
    "hog = [bytearray(50 << 20) for _ in range(40)]; time.sleep(20)": (
        "exceeded its memory limit of 300M (OUT_OF_MEMORY): raise SLURM_MEM"
    ),
    "time.sleep(600)": "exceeded its walltime of 00:01:00 (TIMEOUT): raise SLURM_TIME, or lower",
}

AT_A_TIME = 4


BROKE = "leave(traceback='Traceback:\\n  File x\\nValueError: boom\\n'); sys.exit(1)"


def test_the_results_of_a_job_that_broke_are_not_looked_for(runs):
    """They would be waited for, and what is wrong would be told of them."""
    outcome = runs.start(BROKE, table="dot_products").outcome()
    assert outcome["failure"] == "the partition job crashed: ValueError: boom"
    assert "File x" in outcome["metadata"]["traceback"]
    assert outcome["materialized"] == 0


@pytest.fixture(scope="module")
def outcomes(lab, new_runs, tmp_path_factory):
    """What each job does -> what came of its run; the longest one goes on beside all others."""
    runs = new_runs(lab, tmp_path_factory.mktemp("endings"))
    waiting = [WELL, *FAILURES][::-1]
    started: dict[str, Any] = {}
    outcomes: dict[str, Any] = {}
    while waiting or started:
        while waiting and len(started) < AT_A_TIME:
            behaviour = waiting.pop(0)
            limit = {"SLURM_TIME": "00:01:00"} if behaviour == "time.sleep(600)" else {}
            first = "print('a line of the log', flush=True)\n"
            started[behaviour] = runs.start(first + behaviour, f"{len(outcomes) + len(started):04}-9999", **limit)
        # The longest was started first.
        behaviour = list(started)[-1]
        outcomes[behaviour] = started.pop(behaviour).outcome()
    return outcomes


def test_what_a_job_did_comes_back_with_what_it_used(outcomes):
    outcome = outcomes[WELL]
    measured = outcome["result"]["measured"]
    assert (measured["passes"], measured["slurm_state"]) == (3, "COMPLETED")
    assert measured["slurm_job_id"] > 0
    assert outcome["materialized"] == 1


def test_the_files_of_a_job_whose_result_was_taken_are_marked(outcomes):
    def is_taken(behaviour):
        (folder,) = (text.split("its files: ")[1] for text in outcomes[behaviour]["said"] if "its files: " in text)
        return Path(folder, "taken").exists()

    assert is_taken(WELL)
    assert not is_taken("sys.exit(7)")


@pytest.mark.parametrize("behaviour", FAILURES)
def test_a_job_that_fails_says_why_and_nothing_is_materialized(outcomes, behaviour):
    outcome = outcomes[behaviour]
    assert FAILURES[behaviour] in outcome["failure"]
    assert (outcome["materialized"], outcome["retries"]) == (0, 0)
    assert "a line of the log" in outcome["metadata"]["last_50_lines_of_the_log"]
    assert outcome["metadata"]["slurm_node"] in {"lab1", "lab2"}
