"""Messages of partition jobs through Dagster Pipes: progress as data, and readers for jobs here and on a cluster."""

import json
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
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


class FedMessageReader(dg.PipesMessageReader):
    """Message reader that receives a job's file of messages piece by piece and handles its complete lines.

    An outage delays messages but loses none, because reading resumes at a byte offset.

    Args:
        path: Path of the file where the job runs.
        log: Log of the step that waits for the job.
    """

    def __init__(self, path: str, log: logging.Logger) -> None:
        self._path = path
        self._log = log
        self._handler: dg.PipesMessageHandler | None = None
        self.read_bytes = 0

    @contextmanager
    def read_messages(self, handler: dg.PipesMessageHandler) -> Iterator[PipesParams]:
        """Accept pieces while the block runs; yield the parameters that the job's message writer needs."""
        self._handler = handler
        yield {PipesDefaultMessageWriter.FILE_PATH_KEY: self._path}

    def feed(self, piece: bytes) -> bool:
        """Handle the complete lines of a piece, and return whether there were any.

        Args:
            piece: Bytes of the file from offset `read_bytes`, the end of the last complete line.
        """
        assert self._handler is not None
        whole = piece[: piece.rfind(b"\n") + 1]
        self.read_bytes += len(whole)
        for line in whole.splitlines():
            # A killed job may leave half a line, to which a requeued one appends; a dead node may leave garbage.
            with suppress(ValueError):
                handle_message(json.loads(line), self._handler, self._log)
        return bool(whole)

    def no_messages_debug_text(self) -> str:
        """Return the text that Dagster appends to its warning about a job without messages."""
        return f"Looked at {self._path}, where the job runs."


class LocalMessageReader(FedMessageReader):
    """Message reader that follows a temporary file of this machine, in a thread.

    Dagster 1.13's `PipesTempFileMessageReader` may read half of a line that is still being written. Its thread then
    dies with a traceback, and all later messages of the job are lost.

    Args:
        folder: Folder of the file, which exists while messages are read.
        log: Log of the step that waits for the job.
    """

    def __init__(self, folder: Path, log: logging.Logger) -> None:
        super().__init__(str(folder / "messages"), log)

    @contextmanager
    def read_messages(self, handler: dg.PipesMessageHandler) -> Iterator[PipesParams]:
        """Read messages while the block runs; yield the parameters that the job's message writer needs."""
        Path(self._path).touch()
        ended = Event()
        thread = Thread(target=self._follow, args=(ended.is_set,), daemon=True)
        with super().read_messages(handler) as parameters:
            thread.start()
            try:
                yield parameters
            finally:
                ended.set()
                thread.join()

    def _follow(self, has_ended: Callable[[], bool]) -> None:
        """Feed what the job writes; drop the incomplete last line of a killed job."""
        with Path(self._path).open("rb") as messages:
            while True:
                ended = has_ended()
                messages.seek(self.read_bytes)
                if not self.feed(messages.read()):
                    if ended:
                        return
                    time.sleep(SECONDS_BETWEEN_LOOKS)
