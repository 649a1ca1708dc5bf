"""How the benchmarks measure and print: seconds, peak memory, where time goes; JSON lines, and a table at the end.

Needs torch, psutil and gradsim alone, as do the benchmarks for machines that have nothing else. Bytes are bytes of
memory; GB are billions of them.
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
    """What it ran on, for every row."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{os.cpu_count()} x {platform.machine()}"
    return {"device": name, "threads": torch.get_num_threads(), "torch": torch.__version__}


def emit(row: Row) -> Row:
    """Print a measurement as one line of JSON, at once."""
    print(json.dumps(row), flush=True)
    return row


def table(rows: Sequence[Row], columns: Mapping[str, str]) -> str:
    """Rows under headings, aligned; columns maps keys of a row to headings, what a row lacks stays empty."""
    cells = [list(columns.values()), *([_cell(row.get(key)) for key in columns] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = [
        "  ".join(
            # Names to the left, numbers to the right.
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
        # Three digits that count, whatever the size.
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def alone(script: str, options: Sequence[str]) -> Row:
    """The row that a script prints last, run in a process of its own; so that its memory and time are its own.

    A process that ends badly (the kernel's killer of processes included) gives a row that says how.
    """
    command = [sys.executable, script, *options]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode != 0:
        return {"failed": f"exit status {done.returncode}"}
    row: Row = json.loads(done.stdout.splitlines()[-1])
    return row


def keep_freed_memory() -> None:
    """Start the process again with a C library that keeps memory which was freed, if it is glibc and was told nothing.

    Else it gives what lies at the end of its heap back to the system and asks for it again in the next pass. How long
    that takes depends on the machine (on virtual ones up to 9 µs a page of 4 KiB), and what is measured drowns in it.
    """
    if not os.environ.keys() & KEEP_FREED_MEMORY.keys():
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **KEEP_FREED_MEMORY})


def in_turn(first: Callable[[], object], second: Callable[[], object], rounds: int) -> tuple[list[float], list[float]]:
    """Seconds of two things that run in turn, round after round; which of them begins, too."""
    times: tuple[list[float], list[float]] = ([], [])
    for number in range(rounds):
        order = [(times[0], first), (times[1], second)]
        for seconds, call in order if number % 2 else order[::-1]:
            start = time.perf_counter()
            call()
            seconds.append(time.perf_counter() - start)
    return times


class PeakMemory:
    """Peak of this process's resident memory from here on, and of a GPU's allocated memory where there is one.

    Where the kernel does not let a process forget its earlier peak (other systems than Linux), that stays counted.
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
        """The peak so far."""
        return torch.cuda.max_memory_allocated(self._device) if self._device.type == "cuda" else peak_resident_bytes()

    @property
    def grown(self) -> int:
        """By how much the peak is above what was taken in the beginning."""
        return self.bytes - self.before

    def _now(self) -> int:
        return torch.cuda.memory_allocated(self._device) if self._device.type == "cuda" else resident_bytes()


_STATUS = Path("/proc/self/status")


def resident_bytes() -> int:
    """What this process has in memory now."""
    return int(psutil.Process().memory_info().rss)


def peak_resident_bytes() -> int:
    """The most that this process has had in memory.

    Not `ru_maxrss` where there is better: it begins with the parent's memory in a process that was just started.
    """
    if _STATUS.exists() and (found := re.search(r"VmHWM:\s+(\d+) kB", _STATUS.read_text(encoding="ascii"))):
        return int(found[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


class Stopwatch:
    """Seconds of parts of a computation: of functions, by the names of the parts; what one calls is its own.

    A GPU's work is waited for at the ends of each call.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._running = False
        self.seconds: dict[str, float] = {}

    @contextmanager
    def timing(self, parts: Mapping[str, Sequence[tuple[Any, str]]]) -> Iterator[None]:
        """Within, every part's functions are timed, each given as (module or class, name)."""
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
    """Seconds, when all that the device was given is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
