"""Progress reports at a rate suitable for a log."""

from collections.abc import Callable

Progress = Callable[[int, int], None]


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
