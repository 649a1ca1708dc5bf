"""What a person sees of a run at the terminal: a line for each finished asset, and a bar for long work."""

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager

import dagster as dg
from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from gradsim_assets.keys import table_key

LOGGER_KEY = "terminal"

# As the assets and partition jobs log their progress: "paraphrased gradients: 40 of 120 samples".
_PROGRESS = re.compile(r"^(?P<what>[\w ]+): (?P<done>\d+) of (?P<total>\d+) \w+$")

# What steps say themselves; errors are Dagster's, and told when the run has failed.
_SAID = {logging.INFO, logging.WARNING}

console = Console(highlight=False)


class TerminalHandler(logging.Handler):
    """Turns a run's events into lines and bars."""

    def __init__(self, progress: Progress) -> None:
        super().__init__(logging.DEBUG)  # as Dagster logs its events
        self._progress = progress
        self._bars: dict[str, TaskID] = {}
        self._announced: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        """Show what matters of an event or a log line."""
        meta = getattr(record, "dagster_meta", {})
        event: dg.DagsterEvent | None = meta.get("dagster_event")
        message: str = meta.get("orig_message", record.getMessage())
        if event is not None and event.is_step_materialization:
            self._materialized(event)
        elif event is None and (found := _PROGRESS.match(message)):
            self._advance(found["what"], int(found["done"]), int(found["total"]))
        elif event is None and record.levelno in _SAID and not message.startswith("[pipes]"):
            self._progress.print(f"  [dim]{escape(message)}[/]", soft_wrap=True)

    def _materialized(self, event: dg.DagsterEvent) -> None:
        materialization = event.step_materialization_data.materialization
        key = table_key(materialization.asset_key)
        if str(key) in self._announced:
            return
        self._announced.add(str(key))
        rows = materialization.metadata.get("dagster/row_count")
        self._progress.print(f"  [green]✓[/] {key}" + (f"  [dim]{rows.value:,} rows[/]" if rows else ""))

    def _advance(self, what: str, done: int, total: int) -> None:
        if what not in self._bars:
            self._bars[what] = self._progress.add_task(what, total=total)
        self._progress.update(self._bars[what], completed=done, total=total)
        if done == total:
            self._progress.remove_task(self._bars.pop(what))


@contextmanager
def run_display() -> Iterator[dg.LoggerDefinition]:
    """A display for the runs of a block, and the Dagster logger that feeds it."""
    columns = (
        TextColumn("  {task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("[dim]left[/]"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        handler = TerminalHandler(progress)

        def terminal(context: dg.InitLoggerContext) -> logging.Logger:
            logger = logging.Logger("gradsim.terminal", logging.DEBUG)
            logger.addHandler(handler)
            return logger

        yield dg.logger(terminal)
