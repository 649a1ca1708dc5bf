"""Jobs in processes forked from a server: what comes back, what ends with what, and what a fork must not break."""

import os
import signal
import subprocess
import sys
import threading

import psutil
import pytest

from gradsim_assets_tests.programs import has_ended
from resources.job_server import IMPORTED

pytestmark = pytest.mark.slow


@pytest.fixture
def arguments(tmp_path):
    return ["behaving_job", str(tmp_path)]


@pytest.fixture
def run(behaving_server, arguments):
    """Runs Python code as a job; its exit status."""

    def run(behaviour, **variables):
        return behaving_server.run(arguments, {**os.environ, **variables, "BEHAVIOUR": behaviour})

    return run


@pytest.fixture
def server(new_server):
    """One that a test may stop; it imports nothing."""
    server = new_server(imported=())
    yield server
    server.stop()


def server_process(server):
    return psutil.Process(server._process.pid)


@pytest.mark.parametrize(
    ("behaviour", "status"),
    [
        ("pass", 0),
        ("sys.exit()", 0),
        ("sys.exit(7)", 7),
        ("sys.exit('why')", 1),
        ("raise ValueError", 1),
        ("os._exit(3)", 3),
        ("os.kill(os.getpid(), signal.SIGKILL)", -signal.SIGKILL),
        ("os.kill(os.getpid(), signal.SIGSEGV)", -signal.SIGSEGV),
    ],
)
def test_a_job_ends_with_the_status_of_a_python_process(run, behaviour, status):
    assert run(behaviour) == status


def test_a_crash_takes_nothing_else_down(run, behaving_server):
    first = server_process(behaving_server).pid
    assert run("os.kill(os.getpid(), signal.SIGKILL)") == -signal.SIGKILL
    assert run("pass") == 0
    assert server_process(behaving_server).pid == first


def test_a_job_writes_where_its_requester_writes_now(run, capfd):
    run("print('first', flush=True); print('trouble', file=sys.stderr)")
    assert capfd.readouterr() == ("first\n", "trouble\n")
    run("raise ValueError('boom')")
    assert capfd.readouterr().err.endswith("ValueError: boom\n")
    run("print('buffered')")
    assert capfd.readouterr().out == "buffered\n"


def test_a_job_has_the_environment_and_the_arguments_it_is_given(run, tmp_path, monkeypatch):
    monkeypatch.setenv("NOT_GIVEN", "1")
    file = tmp_path / "told"
    run(f"Path({str(file)!r}).write_text(' '.join([sys.argv[1], os.environ['GIVEN'], __name__]))", GIVEN="yes")
    assert file.read_text(encoding="utf-8") == f"{tmp_path} yes __main__"


def test_jobs_begin_with_torch_and_leave_no_trace_in_each_other(run, tmp_path):
    file = tmp_path / "told"
    tell = f"Path({str(file)!r}).write_text(' '.join(sorted(sys.modules)))"
    run(f"import this, polars; sys.trace_left = 1; {tell}")
    assert {"this", "polars", *IMPORTED} <= set(file.read_text(encoding="utf-8").split())
    run(f"assert not hasattr(sys, 'trace_left'); {tell}")
    assert not {"this", "polars", "gradsim"} & set(file.read_text(encoding="utf-8").split())


def test_threads_work_in_a_job_as_they_do_elsewhere(run):
    work = (
        "import torch, polars as pl, numpy as np; torch.set_num_threads(2); "
        "a = torch.rand(600, 600); assert torch.isfinite(a @ a).all(); "
        "assert pl.DataFrame({'a': range(200_000)}).group_by('a').len().height == 200_000; "
        "b = np.random.rand(600, 600); assert np.isfinite(b @ b).all()"
    )
    assert run(work) == run(work) == 0


def test_the_server_imports_nothing_that_asks_for_a_gpu():
    asked = "is_available", "device_count", "current_device", "get_device_properties", "_lazy_init"
    code = (
        "import importlib, torch\n"
        "def refuse(*arguments): raise AssertionError('a GPU was asked for')\n"
        f"for name in {asked}: setattr(torch.cuda, name, refuse)\n"
        f"for module in {IMPORTED}: importlib.import_module(module)\n"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    "work",
    [
        "import time; time.sleep(600)",
        "import re; re.match('(a+)+b', 'a' * 60)",  # holds the interpreter's lock
    ],
    ids=["willing", "stubborn"],
)
def test_an_interrupted_wait_ends_the_job_and_its_server(server, arguments, tmp_path, monkeypatch, wait_until, work):
    monkeypatch.setattr("resources.job_server.SECONDS_TO_END", 0.5)
    file = tmp_path / "pid"

    def interrupt():
        wait_until(lambda: file.exists() and file.read_text(), "the job")
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt).start()
    behaviour = f"Path({str(file)!r}).write_text(str(os.getpid())); {work}"
    with pytest.raises(KeyboardInterrupt):
        server.run(arguments, {**os.environ, "BEHAVIOUR": behaviour})
    assert not server.is_running()
    wait_until(lambda: has_ended(int(file.read_text())), "the job's end")


def test_a_server_that_is_killed_is_told_from_a_job_that_is(server, arguments, tmp_path, wait_until):
    file = tmp_path / "pid"
    behaviour = (
        f"Path({str(file)!r}).write_text(str(os.getpid())); os.kill(os.getppid(), signal.SIGKILL); "
        "import time; time.sleep(600)"
    )
    assert server.run(arguments, {**os.environ, "BEHAVIOUR": behaviour}) == -signal.SIGKILL
    assert not server.is_running()
    wait_until(lambda: has_ended(int(file.read_text())), "the job's end")


def test_a_server_that_cannot_import_its_modules_says_so(new_server, arguments, capfd):
    server = new_server(imported=["no_such_module"])
    assert server.run(arguments, dict(os.environ)) == 1
    assert "No module named 'no_such_module'" in capfd.readouterr().err
    assert not server.is_running()


def test_a_server_that_is_killed_between_jobs_has_the_status_of_its_end(server, arguments):
    assert server.run(arguments, {**os.environ, "BEHAVIOUR": "pass"}) == 0
    server_process(server).kill()
    assert server.run(arguments, {**os.environ, "BEHAVIOUR": "pass"}) == -signal.SIGKILL


def test_a_server_ends_with_the_process_that_started_it(wait_until):
    code = "import os; from resources.job_server import JobServer; print(JobServer(os.environ, ())._process.pid)"
    pid = int(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout)
    wait_until(lambda: has_ended(pid), "the server's end")
