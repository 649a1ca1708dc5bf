"""The command `web`: Dagster's web UI and daemon, as two processes that stop together."""

import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from gradsim.environment import project_root, read_environment
from gradsim.errors import StudyError
from gradsim_assets.abandoned import fail_abandoned_runs
from gradsim_assets.launch.instance import open_instance
from gradsim_assets.terminal import console

SECONDS_TO_END = 20


def serve(port: int) -> int:
    """Serve until interrupted, or until one of the two processes exits, and return the exit status.

    Raises:
        StudyError: The port is in use, or the instance's folder cannot be written.
    """
    _refuse_taken(port)
    with open_instance(read_environment()) as instance:
        home = instance.root_directory
        fail_abandoned_runs(instance)
    workspace = ["--workspace", str(project_root() / "workspace.yaml")]
    console.print(f"web UI on [bold]http://localhost:{port}[/], instance in {home}; Ctrl-C stops it")
    commands = [
        [_script("dagster-webserver"), *workspace, "--host", "127.0.0.1", "--port", str(port)],
        [_script("dagster-daemon"), "run", *workspace],
    ]
    processes = [subprocess.Popen(command, cwd=project_root()) for command in commands]
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        while all(process.poll() is None for process in processes):
            time.sleep(0.5)
    except KeyboardInterrupt:
        console.print("stopping")
        return 0
    finally:
        ended = [process.poll() for process in processes]
        _end(processes)
    for command, status in zip(commands, ended, strict=True):
        if status is not None:
            console.print(f"[bold red]error:[/] {Path(command[0]).name} exited with status {status}; see its output")
    return 1


def _end(processes: Sequence["subprocess.Popen[bytes]"]) -> None:
    """Terminate all processes, and kill those that do not exit within `SECONDS_TO_END`."""
    for process in processes:
        process.terminate()
    for process in processes:
        try:
            process.wait(SECONDS_TO_END)
        except subprocess.TimeoutExpired:
            process.kill()


def _refuse_taken(port: int) -> None:
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("127.0.0.1", port))
        except OSError as error:
            raise StudyError(
                f"port {port} cannot be used ({error.strerror}); choose another: --port, or make web PORT=..."
            ) from error


def _script(name: str) -> str:
    """Return the path of a command of this virtual environment, which need not be activated."""
    return str(Path(sys.executable).with_name(name))
