"""Termination of child processes."""

import subprocess
from collections.abc import Sequence

SECONDS_TO_END = 20


def end(processes: Sequence["subprocess.Popen[bytes]"]) -> None:
    """Terminate all processes, and kill those that do not exit within `SECONDS_TO_END`."""
    for process in processes:
        process.terminate()
    for process in processes:
        try:
            process.wait(SECONDS_TO_END)
        except subprocess.TimeoutExpired:
            process.kill()
