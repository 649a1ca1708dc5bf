"""Progress reports at a rate suitable for a log."""

import time
from collections.abc import Callable
from dataclasses import dataclass

Progress = Callable[[int, int], None]

SECONDS_BETWEEN_REPORTS = 30.0


@dataclass(frozen=True)
class WorkDone:
    """State of a piece of work, as partition jobs report it and displays show it.

    Attributes:
        what: Name of the work, identical in all its reports.
        done: Number of finished units.
        total: Number of units.
        unit: Plural name of the units.
    """

    what: str
    done: int
    total: int
    unit: str

    def __str__(self) -> str:
        return f"{self.what}: {self.done} of {self.total} {self.unit}"


def in_steps(report: Progress, steps: int = 50) -> Progress:
    """Return a progress callback that calls `report(done, total)` only when a step of the work is complete.

    The first call is always reported, then at most `steps` more, and between them one every `SECONDS_BETWEEN_REPORTS`
    in long work. A restarted count is reported again.

    Args:
        report: Callback that receives the selected updates.
        steps: Number of equal steps that the work is divided into.
    """
    shown, said = -1, 0.0

    def progress(done: int, total: int) -> None:
        nonlocal shown, said
        step, now = steps * done // max(total, 1), time.monotonic()
        if step != shown or now - said >= SECONDS_BETWEEN_REPORTS:
            shown, said = step, now
            report(done, total)

    return progress
