"""Utilities to run commands, and to find and end processes by unique properties, never by name."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from errors import LabError

COMMAND_LIMIT = 40.0  # seconds
PROBE_LIMIT = 5.0
STOP_LIMIT = 10.0
PAUSE = 0.05

SEARCH_PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/bin:/sbin:/bin"


def find_program(name: str) -> str | None:
    """Return the full path of a program; None if it is not installed."""
    return shutil.which(name, path=SEARCH_PATH)


def run(command: list[str], environment: Mapping[str, str], expected: tuple[int, ...] = (0,)) -> str:
    """Run a command and return its output.

    Raises:
        LabError: The exit status is not among the expected ones.
    """
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=COMMAND_LIMIT, check=False)
    if done.returncode not in expected:
        raise LabError(f"{' '.join(command)}: {(done.stderr or done.stdout).strip()}")
    return done.stdout


def succeeds(command: list[str], environment: Mapping[str, str]) -> bool:
    """Return whether a command succeeds within `PROBE_LIMIT`."""
    try:
        done = subprocess.run(command, env=environment, capture_output=True, timeout=PROBE_LIMIT, check=False)
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0


def wait_until(condition: Callable[[], bool], limit: float) -> bool:
    """Wait for a condition, and return whether it became true within `limit` seconds."""
    end = time.monotonic() + limit
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(PAUSE)
    return True


def listens(address: str | tuple[str, int]) -> bool:
    """Return whether a unix socket, or a host's port, accepts connections."""
    family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as client:
        return client.connect_ex(address) == 0


def is_alive(process: int) -> bool:
    """Return whether a process is still running; zombies are not."""
    with contextlib.suppress(OSError):
        return _status(process)[0] not in {"Z", "X"}
    return False


def command_name(process: int) -> str:
    """Return the name of the program that a process runs; "" if there is no such process."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{process}/comm").read_text(encoding="utf-8").strip()
    return ""


def writes_errors_to(process: int, path: Path) -> bool:
    """Return whether a process's standard error is this file."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{process}/fd/2").readlink() == path
    return False


def processes_with(**variables: str) -> set[int]:
    """Return the processes that were started with these environment variables, without this one."""
    wanted = {f"{name}={value}".encode() for name, value in variables.items()}
    found = set()
    for process in _processes():
        with contextlib.suppress(OSError):
            if wanted <= set(Path(f"/proc/{process}/environ").read_bytes().split(b"\0")):
                found.add(process)
    return found - {os.getpid()}


def descendants(ancestor: int) -> set[int]:
    """Return all descendants of a process."""
    parents = {}
    for process in _processes():
        with contextlib.suppress(OSError):
            parents[process] = int(_status(process)[1])
    found: set[int] = set()
    while new := {process for process, parent in parents.items() if parent in found | {ancestor}} - found:
        found |= new
    return found


def end(find: Callable[[], set[int]], how: signal.Signals) -> None:
    """Signal processes until `find` returns none, and kill those still alive after `STOP_LIMIT`."""
    told: set[int] = set()
    end_of_patience = time.monotonic() + STOP_LIMIT
    while found := {process for process in find() if is_alive(process)}:
        impatient = time.monotonic() > end_of_patience
        for process in found if impatient else found - told:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL if impatient else how)
        told |= found
        time.sleep(PAUSE)


def freeze(find: Callable[[], set[int]]) -> None:
    """Suspend processes until `find` returns no others, so that none of them sees another end."""
    frozen: set[int] = set()
    while found := {process for process in find() if is_alive(process)} - frozen:
        for process in found:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGSTOP)
        frozen |= found


def _processes() -> Iterator[int]:
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            yield int(entry.name)


def _status(process: int) -> list[str]:
    """Return a process's stat fields from its state on; the name before them may contain any characters."""
    return Path(f"/proc/{process}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
