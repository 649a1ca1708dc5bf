"""Progress in steps that a log can take."""

from collections.abc import Callable

Progress = Callable[[int, int], None]


def in_steps(report: Progress, steps: int = 50) -> Progress:
    """Calls `report(done, total)` at the beginning and then at most `steps` times; anew where `done` starts anew."""
    shown = -1

    def progress(done: int, total: int) -> None:
        nonlocal shown
        step = steps * done // max(total, 1)
        if step != shown:
            shown = step
            report(done, total)

    return progress
