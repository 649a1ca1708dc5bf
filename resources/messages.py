"""Messages of partition jobs through Dagster Pipes: a reader for jobs on this machine, and progress as data."""

import json
import logging
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread

import dagster as dg
from dagster_pipes import PipesDefaultMessageWriter, PipesMessage, PipesParams

from gradsim.partition_job import job
from gradsim.progress import WorkDone

SECONDS_BETWEEN_LOOKS = 0.05

# Attribute of a log record that reports progress; its value is a `WorkDone`.
WORK_DONE = "work_done"


def log_progress(log: logging.Logger, work: WorkDone) -> None:
    """Log the state of some work, as a sentence for people and as data for displays."""
    log.info(str(work), extra={WORK_DONE: work})


def handle_message(message: PipesMessage, handler: dg.PipesMessageHandler, log: logging.Logger) -> None:
    """Log a message that reports progress, and let Dagster handle all others."""
    match message:
        case {"method": "report_custom_message", "params": {"payload": {job.PROGRESS: dict(work)}}}:
            log_progress(log, WorkDone(**work))
        case _:
            handler.handle_message(message)


class WholeLineMessageReader(dg.PipesMessageReader):
    """Message reader that handles a message only once its line is complete.

    Dagster 1.13's `PipesTempFileMessageReader` may read half of a line that is still being written. Its thread then
    dies with a traceback, and all later messages of the job are lost.

    Args:
        log: Log of the step that waits for the job.
    """

    def __init__(self, log: logging.Logger) -> None:
        self._log = log

    @contextmanager
    def read_messages(self, handler: dg.PipesMessageHandler) -> Iterator[PipesParams]:
        """Read messages while the block runs; yield the parameters that the job's message writer needs."""
        with tempfile.TemporaryDirectory(prefix="gradsim-messages-") as folder:
            path = Path(folder) / "messages"
            path.touch()
            ended = Event()
            thread = Thread(target=_forward, args=(path, handler, self._log, ended.is_set), daemon=True)
            thread.start()
            try:
                yield {PipesDefaultMessageWriter.FILE_PATH_KEY: str(path)}
            finally:
                ended.set()
                thread.join()

    def no_messages_debug_text(self) -> str:
        """Return the text that Dagster appends to its warning about a job without messages."""
        return "Read a temporary file of this machine."


def _forward(path: Path, handler: dg.PipesMessageHandler, log: logging.Logger, has_ended: Callable[[], bool]) -> None:
    """Pass each complete line to the handler; drop the incomplete last line of a killed job."""
    line = ""
    with path.open(encoding="utf-8") as messages:
        while True:
            ended = has_ended()
            line += messages.readline()
            if line.endswith("\n"):
                handle_message(json.loads(line), handler, log)
                line = ""
            elif ended:
                return
            else:
                time.sleep(SECONDS_BETWEEN_LOOKS)
