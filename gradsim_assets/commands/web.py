"""The command `web`: Dagster's web UI and daemon, as two processes that stop together."""

import errno
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from gradsim.environment import project_root, read_environment
from gradsim.errors import StudyError
from gradsim_assets.abandoned import fail_abandoned_runs
from gradsim_assets.launch.instance import open_instance
from gradsim_assets.terminal import console

SECONDS_TO_END = 20


def serve(port: int, path: Path | None = None, host_names: Sequence[str] = ()) -> int:
    """Serve until interrupted, or until one of the two processes exits, and return the exit status.

    Args:
        port: Port of this machine to listen on.
        path: Unix socket to listen on instead, which only this user can open.
        host_names: Host names of the web UI besides those of this machine.

    Raises:
        StudyError: The port or the socket cannot be used, or the instance's folder cannot be written.
    """
    with _listener(port, path) as listener:
        with open_instance(read_environment()) as instance:
            home = instance.root_directory
            fail_abandoned_runs(instance)
        address = (
            f"ssh -L {port}:{path.absolute()} HOST, then http://localhost:{port}"
            if path
            else f"http://localhost:{port}"
        )
        console.print(f"web UI on [bold]{address}[/], instance in {home}; Ctrl-C stops it", soft_wrap=True)
        descriptor = listener.fileno()
        server = [sys.executable, "-P", "-m", "gradsim_assets.web_server", str(descriptor), *host_names]
        daemon = [_script("dagster-daemon"), "run", "--workspace", str(project_root() / "workspace.yaml")]
        processes = {
            "web server": subprocess.Popen(server, cwd=project_root(), pass_fds=[descriptor]),
            "daemon": subprocess.Popen(daemon, cwd=project_root()),
        }
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        try:
            while all(process.poll() is None for process in processes.values()):
                time.sleep(0.5)
        except KeyboardInterrupt:
            console.print("stopping")
            return 0
        finally:
            ended = {name: process.poll() for name, process in processes.items()}
            _end(list(processes.values()))
    for name, status in ended.items():
        if status is not None:
            console.print(f"[bold red]error:[/] the {name} exited with status {status}; see its output")
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


@contextmanager
def _listener(port: int, path: Path | None) -> Iterator[socket.socket]:
    """Listen on a port of this machine or on a Unix socket, and remove the socket's file at the end.

    Raises:
        StudyError: The port or the socket cannot be used.
    """
    with socket.socket(socket.AF_UNIX if path else socket.AF_INET) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        umask = os.umask(0o177)
        try:
            if path:
                _remove_abandoned(path)
            listener.bind(str(path) if path else ("127.0.0.1", port))
            listener.listen()
        except OSError as error:
            where, other = (path, "--socket PATH") if path else (f"port {port}", "--port, or make web PORT=...")
            raise StudyError(f"{where} cannot be used ({error.strerror or error}); choose another: {other}") from error
        finally:
            os.umask(umask)
        try:
            yield listener
        finally:
            if path:
                path.unlink(missing_ok=True)


def _remove_abandoned(path: Path) -> None:
    """Remove a Unix socket on which nobody listens any more."""
    if path.is_socket():
        with socket.socket(socket.AF_UNIX) as client:
            if client.connect_ex(str(path)) == errno.ECONNREFUSED:
                path.unlink()


def _script(name: str) -> str:
    """Return the path of a command of this virtual environment, which need not be activated."""
    return str(Path(sys.executable).with_name(name))
