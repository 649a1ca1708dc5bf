"""What a run shows of long work: bars in a terminal of 80 columns, lines in a file."""

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from collections.abc import Mapping, Sequence

import pytest

from gradsim_assets import progress_bars
from gradsim_assets.launch import run_launches
from gradsim_assets.launch.targets import Launch
from gradsim_assets_tests.workplace import MODEL, SCRIPTS, Workplace

COLUMNS = 80
LONG = "answered_by_the_model_that_this_study_compares"
TRAINING = {"reference": {**MODEL["reference"], "steps": 400}}

_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
# Whatever starts a line, or draws one again: line breaks, carriage returns, and moves of the cursor.
_BREAKS = re.compile(r"(?:\r|\n|\x1b\[[0-9;?]*[A-Za-ln-z])+")


def drawn(command: Sequence[str], variables: Mapping[str, str]) -> list[str]:
    """Every line that a command draws in a terminal of 80 columns, one after the other; it has to succeed."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, COLUMNS, 0, 0))
    without = {name: value for name, value in variables.items() if name not in {"COLUMNS", "NO_COLOR"}}
    process = subprocess.Popen(
        command, env={**without, "TERM": "xterm"}, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True
    )
    os.close(theirs)
    output = b""
    try:
        while piece := os.read(ours, 65536):
            output += piece
    except OSError:  # Linux says so at the end
        pass
    os.close(ours)
    text = output.decode()
    assert process.wait() == 0, text
    return [line.rstrip() for line in _BREAKS.split(_COLOURS.sub("", text)) if line.strip()]


@pytest.mark.slow
def test_a_run_in_a_terminal_draws_bars_with_counts_and_the_time_left(workplace: Workplace) -> None:
    answered = {"method": "generate", "prompts": "word_dropout", "max_new_tokens": 100}
    workplace.write_study(model=TRAINING, settings={"word_dropout": {"method": "word_dropout"}, LONG: answered})
    command = [str(SCRIPTS / "gradsim"), "run", "tiny", "--setting", LONG, "--computation", "dot-product"]
    lines = drawn(command, workplace.environment_of_process({}))
    assert max(map(len, lines)) <= COLUMNS
    assert not [line for line in lines if "…" in line], "nothing is cut off"
    bar = r"  {} [ ━╸╺]+ +\d+/{} \d:\d\d:\d\d [\d.]+ (s|min \d+ s) left"
    assert [line for line in lines if re.fullmatch(bar.format("tiny training", 400), line)]
    # A long name takes two lines.
    assert [line for line in lines if re.fullmatch(bar.format(f"{LONG[:20]}\\w+", 20), line)]
    assert "".join(lines).count(f"✓ tiny/{LONG}/queries  20 rows") == 1


PROGRAM = """
import os, subprocess, time
import dagster as dg
from gradsim.progress import WorkDone
from gradsim_assets.launch.display import run_display
from resources.messages import log_progress

with run_display() as (console, definition):
    log = definition.logger_fn(dg.build_init_logger_context())
    for done in (1, 2, 0, 1):
        log_progress(log, WorkDone("training", done, 3, "steps"))
        time.sleep(0.3)
        os.write(2, b"a job warns\\n")
        subprocess.run(["echo", "a process says"])
        console.print("the run prints")
        time.sleep(0.3)
print("the end")
"""


def test_what_jobs_print_stands_above_the_bars() -> None:
    lines = drawn([sys.executable, "-c", PROGRAM], {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)})
    printed = [line for line in lines if not line.startswith("  training ")]
    assert sorted(printed[:-1]) == sorted(["a job warns", "a process says", "the run prints"] * 4)
    assert printed[-1] == "the end"
    bars = list(dict.fromkeys(re.sub(r" \d:\d\d:\d\d.*", "", line) for line in lines if line not in printed))
    assert [re.sub(r"[ ━╸╺]+", " ", bar) for bar in bars] == [f" training {done}/3" for done in (1, 2, 0)]


@pytest.mark.slow
def test_a_run_in_a_file_says_every_so_often_how_far_it_is(
    workplace: Workplace, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    workplace.write_study(model=TRAINING)
    for name, value in workplace.variables.items():
        monkeypatch.setenv(name, value)
    key = workplace.store().lineage.key
    launches = [Launch((key("samples"), key("model")))]
    line = re.compile(r"  tiny training: \d+ of 400 steps, [\d.]+ s left")
    run_launches(workplace.study(), launches, workplace.environment)
    short = capfd.readouterr().out.splitlines()
    assert not [each for each in short if "training" in each], "the training takes less than half a minute"
    monkeypatch.setattr(progress_bars, "SECONDS_BETWEEN_LINES", 0.1)
    run_launches(workplace.study(), launches, workplace.environment, force=True)
    assert len([each for each in capfd.readouterr().out.splitlines() if line.fullmatch(each)]) > 1
