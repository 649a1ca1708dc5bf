"""Progress display of a run in the terminal: a line per finished asset, and a bar for long work."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import dagster as dg
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

from gradsim.progress import WorkDone
from gradsim_assets.checks.partition_checks import PARTITIONS
from gradsim_assets.io_manager import EXCLUDED, TRUNCATED
from gradsim_assets.keys import table_key
from gradsim_assets.terminal import console
from resources.messages import WORK_DONE

LOGGER_KEY = "terminal"

# Levels of the steps' own log lines. Errors come from Dagster and are reported once the run has failed.
_SAID = {logging.INFO, logging.WARNING}


@dataclass
class _Made:
    """A table's materialized rows, over all partitions of a step.

    Attributes:
        rows: Number of rows.
        left_out: Excluded samples (id -> reason).
        truncated: Truncated samples (id -> what is left).
    """

    rows: int = 0
    left_out: dict[str, str] = field(default_factory=dict)
    truncated: dict[str, str] = field(default_factory=dict)


class TerminalHandler(logging.Handler):
    """Logging handler that turns a run's events into lines and progress bars."""

    def __init__(self, progress: Progress) -> None:
        super().__init__(logging.DEBUG)  # Dagster's level for its events
        self._progress = progress
        self._bars: dict[str, TaskID] = {}
        self._made: dict[str, _Made] = {}

    def emit(self, record: logging.LogRecord) -> None:
        """Show an event or a log line, if it matters to the user."""
        meta = getattr(record, "dagster_meta", {})
        event: dg.DagsterEvent | None = meta.get("dagster_event")
        message: str = meta.get("orig_message", record.getMessage())
        if event is not None and event.is_step_materialization:
            self._materialized(event)
            return
        self._announce()
        if event is not None and event.event_type is dg.DagsterEventType.ASSET_CHECK_EVALUATION:
            self._checked(event.asset_check_evaluation_data)
        elif work := getattr(record, WORK_DONE, None):
            self._advance(work)
        elif event is None and record.levelno in _SAID and not message.startswith("[pipes]"):
            self._progress.print(f"  [dim]{escape(message)}[/]", soft_wrap=True)

    def _materialized(self, event: dg.DagsterEvent) -> None:
        """Collect a materialization, to print one line for all partitions of a table."""
        materialization = event.step_materialization_data.materialization
        made = self._made.setdefault(str(table_key(materialization.asset_key)), _Made())
        known: dict[str, Any] = {name: value.value for name, value in materialization.metadata.items()}
        made.rows += known.get("dagster/row_count", 0)
        made.left_out |= known.get(EXCLUDED, {})
        made.truncated |= known.get(TRUNCATED, {})

    def _announce(self) -> None:
        """Print a line for each table materialized since the last call."""
        for key, made in self._made.items():
            rows = f"  [dim]{made.rows:,} rows[/]" if made.rows else ""
            self._progress.print(f"  [green]✓[/] {key}{rows}")
            for what, samples in (("excludes", made.left_out), ("truncates", made.truncated)):
                if samples:
                    sample, note = min(samples.items())
                    more = f", and {len(samples) - 1} more" if len(samples) > 1 else ""
                    self._progress.print(
                        f"  [yellow]![/] {key} {what} {escape(f'{sample} ({note}){more}')}", soft_wrap=True
                    )
        self._made.clear()

    def _checked(self, evaluation: dg.AssetCheckEvaluation) -> None:
        """Print a failed check that only warns; a blocking check fails the run and is reported then."""
        if not (evaluation.passed or evaluation.blocking) and PARTITIONS in evaluation.metadata:
            check = f"{table_key(evaluation.asset_key)} {evaluation.check_name}"
            self._progress.print(
                f"  [yellow]![/] {check}  [dim]{escape(evaluation.description or '')}[/]", soft_wrap=True
            )

    def _advance(self, work: WorkDone) -> None:
        if work.what not in self._bars:
            self._bars[work.what] = self._progress.add_task(work.what, total=work.total)
        self._progress.update(self._bars[work.what], completed=work.done, total=work.total)
        if work.done == work.total:
            self._progress.remove_task(self._bars.pop(work.what))


@contextmanager
def run_display() -> Iterator[dg.LoggerDefinition]:
    """Show progress while the block runs, and yield the Dagster logger that feeds the display."""
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
