"""Reader for the Dagster Pipes messages that a partition job writes to a file while it runs."""

import json
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread

import dagster as dg
from dagster_pipes import PipesDefaultMessageWriter, PipesParams

SECONDS_BETWEEN_LOOKS = 0.05


class WholeLineMessageReader(dg.PipesMessageReader):
    """Message reader that handles a message only once its line is complete.

    Dagster 1.13's `PipesTempFileMessageReader` may read half of a line that is still being written. Its thread then
    dies with a traceback, and all later messages of the job are lost.
    """

    @contextmanager
    def read_messages(self, handler: dg.PipesMessageHandler) -> Iterator[PipesParams]:
        """Read messages while the block runs; yield the parameters that the job's message writer needs."""
        with tempfile.TemporaryDirectory(prefix="gradsim-messages-") as folder:
            path = Path(folder) / "messages"
            path.touch()
            ended = Event()
            thread = Thread(target=_forward, args=(path, handler, ended.is_set), daemon=True)
            thread.start()
            try:
                yield {PipesDefaultMessageWriter.FILE_PATH_KEY: str(path)}
            finally:
                ended.set()
                thread.join()

    def no_messages_debug_text(self) -> str:
        """Return the text that Dagster appends to its warning about a job without messages."""
        return "Read a temporary file of this machine."


def _forward(path: Path, handler: dg.PipesMessageHandler, has_ended: Callable[[], bool]) -> None:
    """Pass each complete line to the handler; drop the incomplete last line of a killed job."""
    line = ""
    with path.open(encoding="utf-8") as messages:
        while True:
            ended = has_ended()
            line += messages.readline()
            if line.endswith("\n"):
                handler.handle_message(json.loads(line))
                line = ""
            elif ended:
                return
            else:
                time.sleep(SECONDS_BETWEEN_LOOKS)
