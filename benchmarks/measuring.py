"""Measure and print for the benchmarks: seconds, peak memory, time per part; JSON lines and tables.

Requires only torch, psutil and gradsim, so that benchmarks also run on machines without the other packages. 1 GB is
10^9 bytes.
"""

import json
import os
import platform
import re
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import psutil
import torch

from gradsim.environment import KEEP_FREED_MEMORY

Row = dict[str, Any]


def machine(device: torch.device) -> Row:
    """Return a description of the machine, for every row."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{os.cpu_count()} x {platform.machine()}"
    return {"device": name, "threads": torch.get_num_threads(), "torch": torch.__version__}


def emit(row: Row) -> Row:
    """Print a measurement as one line of JSON, flush, and return it."""
    print(json.dumps(row), flush=True)
    return row


def table(rows: Sequence[Row], columns: Mapping[str, str]) -> str:
    """Return rows as an aligned table; `columns` maps keys of a row to headings, and missing keys give empty cells."""
    cells = [list(columns.values()), *([_cell(row.get(key)) for key in columns] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = [
        "  ".join(
            # Text to the left, numbers to the right.
            cell.ljust(width) if isinstance(rows[0].get(key), str) else cell.rjust(width)
            for key, cell, width in zip(columns, line, widths, strict=True)
        ).rstrip()
        for line in cells
    ]
    return "\n".join([lines[0], "  ".join("-" * width for width in widths), *lines[1:]])


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        # Three significant digits.
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def alone(script: str, options: Sequence[str]) -> Row:
    """Run a script in its own process, so that memory and time are its own, and return the last row that it prints.

    If the process fails (for example, killed because memory ran out), the row contains its exit status as `failed`.
    """
    command = [sys.executable, script, *options]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode != 0:
        return {"failed": f"exit status {done.returncode}"}
    row: Row = json.loads(done.stdout.splitlines()[-1])
    return row


def keep_freed_memory() -> None:
    """Restart the process with settings that make glibc keep freed memory, unless the environment sets any of them.

    By default, glibc returns memory at the end of its heap to the system and requests it again in the next pass. This
    takes up to 9 µs per 4 KiB page on virtual machines, which would dominate the measurements.
    """
    if not os.environ.keys() & KEEP_FREED_MEMORY.keys():
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **KEEP_FREED_MEMORY})


def in_turn(
    first: Callable[[], object],
    second: Callable[[], object],
    rounds: int,
    clock: Callable[[], float] = time.perf_counter,
) -> tuple[list[float], list[float]]:
    """Return seconds per round of two functions that run in turn; the one that starts alternates as well."""
    times: tuple[list[float], list[float]] = ([], [])
    for number in range(rounds):
        order = [(times[0], first), (times[1], second)]
        for seconds, call in order if number % 2 else order[::-1]:
            start = clock()
            call()
            seconds.append(clock() - start)
    return times


class PeakMemory:
    """Peak memory from its creation on: allocated memory of a GPU, otherwise this process's resident memory.

    Systems other than Linux cannot reset the peak of resident memory, so an earlier peak still counts there.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self.before = self._now()
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        elif _STATUS.exists():
            Path("/proc/self/clear_refs").write_text("5", encoding="ascii")

    @property
    def bytes(self) -> int:
        """Peak so far."""
        return torch.cuda.max_memory_allocated(self._device) if self._device.type == "cuda" else peak_resident_bytes()

    @property
    def grown(self) -> int:
        """Growth of the peak over the memory in use at the start."""
        return self.bytes - self.before

    def _now(self) -> int:
        return torch.cuda.memory_allocated(self._device) if self._device.type == "cuda" else resident_bytes()


_STATUS = Path("/proc/self/status")


def resident_bytes() -> int:
    """Return the current resident memory of this process."""
    return int(psutil.Process().memory_info().rss)


def peak_resident_bytes() -> int:
    """Return the peak resident memory of this process.

    Avoids `ru_maxrss` on Linux, because a new process inherits its parent's value.
    """
    if _STATUS.exists() and (found := re.search(r"VmHWM:\s+(\d+) kB", _STATUS.read_text(encoding="ascii"))):
        return int(found[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


class Stopwatch:
    """Seconds spent in the functions of named parts of a computation; a nested call counts for the outer part.

    Each call is synchronized with the GPU at both ends.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._running = False
        self.seconds: dict[str, float] = {}

    @contextmanager
    def timing(self, parts: Mapping[str, Sequence[tuple[Any, str]]]) -> Iterator[None]:
        """Time the functions of every part, each given as (module or class, name), inside the context."""
        with ExitStack() as stack:
            for part, functions in parts.items():
                self.seconds.setdefault(part, 0.0)
                for owner, name in functions:
                    stack.enter_context(patch.object(owner, name, self._timed(part, getattr(owner, name))))
            yield

    def _timed(self, part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*arguments: Any, **keywords: Any) -> Any:
            if self._running:
                return function(*arguments, **keywords)
            self._running = True
            started = now(self._device)
            try:
                return function(*arguments, **keywords)
            finally:
                self.seconds[part] += now(self._device) - started
                self._running = False

        return timed


def now(device: torch.device) -> float:
    """Return the time in seconds after the device has finished all submitted work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
