"""Progress reports at a rate suitable for a log."""

from collections.abc import Callable
from dataclasses import dataclass

Progress = Callable[[int, int], None]


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

    The first call is always reported, then at most `steps` more. A restarted count is reported again.

    Args:
        report: Callback that receives the selected updates.
        steps: Number of equal steps that the work is divided into.
    """
    shown = -1

    def progress(done: int, total: int) -> None:
        nonlocal shown
        step = steps * done // max(total, 1)
        if step != shown:
            shown = step
            report(done, total)

    return progress
