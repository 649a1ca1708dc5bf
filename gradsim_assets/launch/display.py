"""Progress display of a run: a line per finished asset, and bars for long work, or lines where there is no terminal."""

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from threading import Thread
from typing import Any

import dagster as dg
from rich.console import Console
from rich.markup import escape
from rich.text import Text

from gradsim_assets.checks.partition_checks import PARTITIONS
from gradsim_assets.io_manager import EXCLUDED, TRUNCATED
from gradsim_assets.keys import table_key
from gradsim_assets.progress_bars import ProgressBars, progress_bars
from gradsim_assets.terminal import console
from resources.messages import WORK_DONE

LOGGER_KEY = "terminal"

# Levels of the steps' own log lines. Errors come from Dagster and are reported once the run has failed.
_SAID = {logging.INFO, logging.WARNING}

# Steps run one at a time, so the work that an earlier attempt or another step did not finish has ended.
_STARTS = {dg.DagsterEventType.STEP_START, dg.DagsterEventType.STEP_RESTARTED}

_SECONDS_UNTIL_THREAD_ENDS = 0.5


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

    def __init__(self, bars: ProgressBars) -> None:
        super().__init__(logging.DEBUG)  # Dagster's level for its events
        self._bars = bars
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
        if event is not None and event.event_type in _STARTS:
            self._bars.clear()
        elif event is not None and event.event_type is dg.DagsterEventType.ASSET_CHECK_EVALUATION:
            self._checked(event.asset_check_evaluation_data)
        elif work := getattr(record, WORK_DONE, None):
            self._bars.show(work)
        elif event is None and record.levelno in _SAID and not message.startswith("[pipes]"):
            self._print(f"  [dim]{escape(message)}[/]")

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
            self._print(f"  [green]✓[/] {key}{rows}")
            for what, samples in (("excludes", made.left_out), ("truncates", made.truncated)):
                if samples:
                    sample, note = min(samples.items())
                    more = f", and {len(samples) - 1} more" if len(samples) > 1 else ""
                    self._print(f"  [yellow]![/] {key} {what} {escape(f'{sample} ({note}){more}')}")
        self._made.clear()

    def _checked(self, evaluation: dg.AssetCheckEvaluation) -> None:
        """Print a failed check that only warns; a blocking check fails the run and is reported then."""
        if not (evaluation.passed or evaluation.blocking) and PARTITIONS in evaluation.metadata:
            check = f"{table_key(evaluation.asset_key)} {evaluation.check_name}"
            self._print(f"  [yellow]![/] {check}  [dim]{escape(evaluation.description or '')}[/]")

    def _print(self, text: str) -> None:
        """Print a line, broken between words in a terminal, and whole in a file, which can then be searched."""
        self._bars.progress.print(text, soft_wrap=not self._bars.progress.console.is_terminal)


@contextmanager
def run_display() -> Iterator[tuple[Console, dg.LoggerDefinition]]:
    """Show progress while the block runs; yield a console to print on, and the Dagster logger to feed the display."""
    with ExitStack() as stack:
        shown = stack.enter_context(_own_console()) if console.is_interactive else console
        bars = stack.enter_context(progress_bars(shown))
        if shown.is_interactive:
            stack.enter_context(_above_bars(shown))
        handler = TerminalHandler(bars)

        def terminal(context: dg.InitLoggerContext) -> logging.Logger:
            logger = logging.Logger("gradsim.terminal", logging.DEBUG)
            logger.addHandler(handler)
            return logger

        yield shown, dg.logger(terminal)


@contextmanager
def _own_console() -> Iterator[Console]:
    """Open a console with a descriptor of its own: Dagster redirects descriptor 1 to a file while steps run."""
    with os.fdopen(os.dup(1), "w", encoding=sys.stdout.encoding, errors=sys.stdout.errors) as terminal:
        yield Console(file=terminal, highlight=False)


@contextmanager
def _above_bars(console: Console) -> Iterator[None]:
    """Print what this process and its jobs write to the terminal above the bars, which it would tear apart."""
    streams = [descriptor for descriptor in (1, 2) if os.isatty(descriptor)]
    kept = {descriptor: os.dup(descriptor) for descriptor in streams}
    reading, writing = os.pipe()

    def print_lines() -> None:
        with os.fdopen(reading, errors="replace") as lines:
            for line in lines:
                console.print(Text.from_ansi(line.rstrip("\n")))

    thread = Thread(target=print_lines, daemon=True)
    thread.start()
    for descriptor in streams:
        os.dup2(writing, descriptor)
    os.close(writing)
    try:
        yield
    finally:
        for descriptor, terminal in kept.items():
            os.dup2(terminal, descriptor)
            os.close(terminal)
        thread.join(_SECONDS_UNTIL_THREAD_ENDS)  # a server of jobs that was started meanwhile holds the pipe longer
