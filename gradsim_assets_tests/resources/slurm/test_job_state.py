"""What is understood of a job's state and end: from what Slurm's commands print, and from the job's own files."""

import subprocess
from pathlib import PurePosixPath

import pytest
from dagster_slurm.helpers.metrics import SlurmMetricsCollector

from gradsim.partition_job import JobResult
from resources.slurm.connection import Answer
from resources.slurm.job_state import ENDED, LOG_LINES, Look, end_command, look_command, parse_end, parse_look

JOB = 17

GONE = "echo 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1"
AWAY = "echo 'slurm_load_jobs error: Unable to contact slurm controller (connect failure)' >&2; exit 1"
NO_ACCOUNTING = "echo 'Slurm accounting storage is disabled' >&2; exit 1"
NO_RECORD = "echo 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1"

RECORD = (
    "JobId=17 JobName=gradsim-0123456789abcdef UserId=someone(1000) GroupId=someone(1000) MCS_label=N/A Priority=1 "
    "JobState={state} Reason=None Dependency=(null) Requeue=1 Restarts=0 BatchFlag=1 Reboot=0 ExitCode={exit_code} "
    "RunTime=00:00:05 TimeLimit=00:10:00 TimeMin=N/A Partition=gpu NodeList=lab1 BatchHost=lab1 NumNodes=1 NumCPUs=1 "
    "TRES=cpu=1,mem=300M,node=1,billing=1 MinCPUsNode=1 MinMemoryNode=300M MinTmpDiskNode=0 Features=(null) "
    "Command=/a folder/job.sh WorkDir=/a folder Comment=tiny word_dropout 0000-0001: dot_products and 2 more"
)


def run(command):
    """As on a login node."""
    process = subprocess.run(
        ["bash", "--noprofile", "--norc", "-c", command], capture_output=True, check=False, timeout=60
    )
    return Answer(process.returncode, process.stdout, process.stderr.decode())


@pytest.fixture
def folder(tmp_path):
    """Of the job."""
    folder = tmp_path / "the job's folder"
    folder.mkdir()
    return folder


@pytest.fixture
def look(stand_in, folder):
    """Looks at a job, given squeue's answer, from an offset in its files."""

    def look(squeue="echo 'RUNNING|None'", messages_from=0, log_from=0):
        stand_in("squeue", f"[[ $* == *'-j {JOB} '* ]] || exit 99; {squeue}")
        return parse_look(run(look_command(PurePosixPath(folder), JOB, messages_from, log_from)))

    return look


@pytest.mark.parametrize(
    ("squeue", "state", "reason"),
    [
        ("echo 'PENDING|Resources'", "PENDING", "Resources"),
        (
            "echo 'PENDING|ReqNodeNotAvail, UnavailableNodes:lab[1-2]'",
            "PENDING",
            "ReqNodeNotAvail, UnavailableNodes:lab[1-2]",
        ),
        ("echo 'RUNNING|None'", "RUNNING", "None"),
        ("echo 'NODE_FAIL|None'; echo 'PENDING|BeginTime'", "PENDING", "BeginTime"),
        ("echo 'squeue: warning: an old option' >&2; echo 'RUNNING|None'", "RUNNING", "None"),
        (GONE, "", ""),
        ("true", "", ""),
        (AWAY, None, "slurm_load_jobs error: Unable to contact slurm controller (connect failure)"),
        ("exit 124", None, "squeue did not answer"),
    ],
    ids=["pending", "reason", "running", "requeued", "a warning", "gone", "not printed", "away", "killed"],
)
def test_the_state_is_squeues(look, squeue, state, reason):
    assert look(squeue) == Look(state, reason, b"", b"")


def test_an_empty_answer_tells_nothing():
    assert parse_look(Answer(0, b"", "")) == Look(None, "squeue did not answer", b"", b"")


@pytest.mark.parametrize("state", ["PENDING", "RUNNING", "COMPLETING", "REQUEUED", "SUSPENDED", None])
def test_a_job_goes_on_while_slurm_says_so_or_does_not_answer(state):
    assert not Look(state, "", b"", b"").has_ended


@pytest.mark.parametrize("state", ["", *sorted(ENDED)])
def test_a_job_has_ended_when_slurm_says_so_or_knows_it_no_more(state):
    assert Look(state, "", b"", b"").has_ended


BYTES = bytes(range(256)) + "Grüße\r\nstatus=1\n".encode() + b"\n\n\xff half a line"


@pytest.mark.parametrize("squeue", ["echo 'RUNNING|None'", GONE, AWAY], ids=["running", "gone", "away"])
@pytest.mark.parametrize("seen", [0, 1, 129, 300])
def test_what_is_new_of_messages_and_log_comes_as_it_is(look, folder, squeue, seen):
    (folder / "messages.jsonl").write_bytes(BYTES)
    (folder / "job.log").write_bytes(BYTES[::-1])
    found = look(squeue, messages_from=seen, log_from=seen // 2)
    assert (found.messages, found.log) == (BYTES[seen:], BYTES[::-1][seen // 2 :])
    assert found.state == look(squeue).state


def test_a_long_log_comes_in_pieces(look, folder):
    content = b"".join(b"line %d\n" % number for number in range(250_000))
    (folder / "job.log").write_bytes(content)
    pieces: list[bytes] = []
    while piece := look(log_from=sum(map(len, pieces))).log:
        pieces.append(piece)
    assert b"".join(pieces) == content
    assert len(pieces) > 1


def test_of_a_folder_that_is_gone_slurm_is_asked_all_the_same(look, folder):
    folder.rmdir()
    assert look("echo 'RUNNING|None'") == Look("RUNNING", "None", b"", b"")


# -- the end ---------------------------------------------------------------------------------


def row(name, state, exit_code="0:0", **values):
    """A line of sacct."""
    values = {
        "JobID": name,
        "Elapsed": "00:01:40",
        "TotalCPU": "00:50.000",
        "AllocNodes": "1",
        "AllocCPUS": "1",
        "NodeList": "lab2",
        "State": state,
        "ExitCode": exit_code,
        **values,
    }
    return "|".join(values.get(field, "") for field in SlurmMetricsCollector.SACCT_FORMAT.split(","))


def rows(state, exit_code="0:0"):
    """What sacct prints of a job and its steps."""
    batch_state = state.split(" ")[0]
    lines = [
        row(f"{JOB}", state, exit_code),
        row(f"{JOB}.batch", batch_state, exit_code, MaxRSS="204800K"),
        row(f"{JOB}.extern", "COMPLETED", MaxRSS="0"),
    ]
    return "\n".join(f"echo '{line}'" for line in lines)


def record(state, exit_code="0:0"):
    """What scontrol prints of a job."""
    return f"echo '{RECORD.format(state=state, exit_code=exit_code)}'"


@pytest.fixture
def end(stand_in, folder):
    """The end of a job, given the answers of Slurm's commands."""

    def end(seen="COMPLETED", scontrol=NO_RECORD, sacct=NO_ACCOUNTING):
        stand_in("scontrol", f"[[ $* == 'show job {JOB} -o' ]] || exit 99; {scontrol}")
        stand_in("sacct", f"[[ $* == *'-j {JOB} '* ]] || exit 99; {sacct}")
        return parse_end(run(end_command(PurePosixPath(folder), JOB)), JOB, seen)

    return end


@pytest.mark.parametrize(
    ("seen", "scontrol", "sacct", "state"),
    [
        ("COMPLETED", record("COMPLETED"), rows("COMPLETED"), "COMPLETED"),
        ("", NO_RECORD, rows("TIMEOUT"), "TIMEOUT"),
        ("", NO_RECORD, rows("CANCELLED by 1000"), "CANCELLED"),
        ("", record("OUT_OF_MEMORY"), NO_ACCOUNTING, "OUT_OF_MEMORY"),
        ("FAILED", NO_RECORD, NO_ACCOUNTING, "FAILED"),
        ("", NO_RECORD, NO_ACCOUNTING, ""),
        ("RUNNING", NO_RECORD, NO_ACCOUNTING, ""),
        ("NODE_FAIL", record("NODE_FAIL"), rows("RUNNING"), "NODE_FAIL"),
        ("", NO_RECORD, rows("RUNNING"), ""),
        ("COMPLETED", NO_RECORD, "true", "COMPLETED"),
    ],
    ids=[
        "all know",
        "accounting knows",
        "canceled by somebody",
        "the controller knows",
        "seen before",
        "nobody knows",
        "never seen to end",
        "late accounting",
        "only late accounting",
        "accounting without a row",
    ],
)
def test_how_it_ended_says_who_knows_it(end, seen, scontrol, sacct, state):
    assert end(seen, scontrol, sacct).state == state


def test_what_it_used_is_of_the_batch_step(end):
    metrics = end(sacct=rows("COMPLETED")).metrics
    assert (metrics.max_rss_mb, metrics.elapsed_seconds, metrics.cpu_efficiency) == (200.0, 100.0, 0.5)
    assert metrics.accounting_available


@pytest.mark.parametrize("sacct", [NO_ACCOUNTING, "true", f"echo '{row('171', 'FAILED')}'"])
def test_without_accounting_of_the_job_nobody_knows_what_it_used(end, sacct):
    assert end(sacct=sacct).metrics is None


def test_what_it_had_asked_for_and_where_it_ran_is_the_controllers(end):
    found = end(scontrol=record("TIMEOUT"), sacct=rows("TIMEOUT"))
    assert (found.asked, found.node) == ({"memory": "300M", "walltime": "00:10:00"}, "lab1")
    assert end(sacct=rows("TIMEOUT")).node == "lab2"
    nothing = end()
    assert (nothing.asked, nothing.node) == ({"memory": "", "walltime": ""}, "")


@pytest.mark.parametrize(
    ("scontrol", "sacct", "signal"),
    [
        (NO_RECORD, rows("FAILED", "0:9"), 9),
        (record("FAILED", "0:15"), NO_ACCOUNTING, 15),
        (NO_RECORD, rows("FAILED", "7:0"), 0),
        (NO_RECORD, NO_ACCOUNTING, 0),
    ],
)
def test_the_signal_that_ended_it(end, scontrol, sacct, signal):
    assert end(scontrol=scontrol, sacct=sacct).signal == signal


@pytest.mark.parametrize(("content", "status"), [("0\n", 0), ("137\n", 137), ("", None), (None, None), ("kil", None)])
def test_the_exit_status_that_its_script_left(end, folder, content, status):
    if content is not None:
        (folder / "exit_status").write_text(content)
    assert end(sacct=rows("FAILED", "3:0")).exit_status == status


RESULT = JobResult(partitions=("0000-0001",), fingerprints={"dot_products": "0123"}, measured={"passes": 3})


@pytest.mark.parametrize(
    ("content", "result"),
    [
        (RESULT.model_dump_json().encode(), RESULT),
        (RESULT.model_dump_json().encode()[:40], None),
        (b"{}", None),
        (b"\0" * 100, None),
        (b"\xff\xfe", None),
        (b"", None),
        (None, None),
    ],
    ids=["whole", "half", "no result", "zeros", "no text", "empty", "missing"],
)
def test_only_a_whole_result_counts(end, folder, content, result):
    if content is not None:
        (folder / "job.result.json").write_bytes(content)
    assert end().result == result


def test_the_last_lines_of_its_log(end, folder):
    lines = [f"line {number} \xfc" for number in range(LOG_LINES + 30)]
    (folder / "job.log").write_bytes("\n".join(lines).encode("latin-1"))
    log = end().log.splitlines()
    assert len(log) == LOG_LINES
    assert (log[0], log[-1]) == ("line 30 \N{REPLACEMENT CHARACTER}", "line 79 \N{REPLACEMENT CHARACTER}")


def test_nothing_is_known_of_a_job_whose_folder_is_gone(end, folder):
    folder.rmdir()
    found = end("CANCELLED")
    assert (found.state, found.exit_status, found.result, found.log) == ("CANCELLED", None, None, "")
