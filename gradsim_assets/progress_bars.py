"""Progress of long work: bars in a terminal, or lines where there is none."""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event, Thread

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
)
from rich.table import Column
from rich.text import Text

from gradsim.progress import WorkDone
from gradsim_assets.terminal import seconds_text

SECONDS_BETWEEN_LINES = 30.0
_SECONDS_BETWEEN_LOOKS = 0.5


class ProgressBars:
    """Bars of the pieces of work that are not finished.

    Attributes:
        progress: Display of the bars; print on it to print above them.
    """

    def __init__(self, progress: Progress) -> None:
        self.progress = progress
        self._bars: dict[str, Task] = {}

    def show(self, work: WorkDone) -> None:
        """Show how far a piece of work is, until it is done."""
        if (bar := self._bars.get(work.what)) and work.done < bar.completed:
            self._remove(work.what)  # the count was restarted
        if work.what not in self._bars:
            self.progress.add_task(
                work.what, total=work.total, completed=work.done, work=work, before=work.done, said=0.0
            )
            self._bars[work.what] = self.progress.tasks[-1]
        self.progress.update(self._bars[work.what].id, completed=work.done, total=work.total, work=work)
        if work.done == work.total:
            self._remove(work.what)

    def clear(self) -> None:
        """Remove all bars."""
        for what in list(self._bars):
            self._remove(what)

    def _remove(self, what: str) -> None:
        self.progress.remove_task(self._bars.pop(what).id)


@contextmanager
def progress_bars(console: Console) -> Iterator[ProgressBars]:
    """Yield bars that are shown on a console while the block runs."""
    columns = (
        TextColumn("  {task.description}", table_column=Column(overflow="fold")),
        BarColumn(bar_width=16, table_column=Column(no_wrap=True)),
        MofNCompleteColumn(table_column=Column(no_wrap=True)),
        TimeElapsedColumn(table_column=Column(no_wrap=True)),
        _TimeLeft(table_column=Column(no_wrap=True)),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        if console.is_interactive:
            yield ProgressBars(progress)
        else:
            with _as_lines(progress):
                yield ProgressBars(progress)


class _TimeLeft(ProgressColumn):
    """Time that the rest of the work takes at the pace since its bar appeared; empty before anything is done."""

    max_refresh = 0.5

    def render(self, task: Task) -> Text:
        """Return, for example, `3 min 20 s left`."""
        return Text(_time_left(task))


def _time_left(task: Task) -> str:
    done = task.completed - task.fields["before"]
    if done <= 0 or task.elapsed is None or task.remaining is None:
        return ""
    return f"{seconds_text(task.elapsed / done * task.remaining)} left"


@contextmanager
def _as_lines(progress: Progress) -> Iterator[None]:
    """Print a line about each piece of work every `SECONDS_BETWEEN_LINES`, from a thread: a job may report rarely."""
    ended = Event()

    def print_lines() -> None:
        while not ended.wait(min(_SECONDS_BETWEEN_LOOKS, SECONDS_BETWEEN_LINES)):
            for task in progress.tasks:
                if (task.elapsed or 0) - task.fields["said"] >= SECONDS_BETWEEN_LINES:
                    task.fields["said"] = task.elapsed
                    left = _time_left(task)
                    progress.print(
                        f"  [dim]{escape(str(task.fields['work']))}{left and f', {left}'}[/]", soft_wrap=True
                    )

    thread = Thread(target=print_lines, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
