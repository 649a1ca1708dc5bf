"""Ending processes that this one has started."""

import subprocess
from collections.abc import Sequence

SECONDS_TO_END = 20


def end(processes: Sequence["subprocess.Popen[bytes]"]) -> None:
    """Ask all of them to end, then make those end that have not done so in time."""
    for process in processes:
        process.terminate()
    for process in processes:
        try:
            process.wait(SECONDS_TO_END)
        except subprocess.TimeoutExpired:
            process.kill()
