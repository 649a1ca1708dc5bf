"""What a partition job says while it runs: a reader of the messages that it writes to a file."""

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
    """Takes a message when its line is complete.

    `PipesTempFileMessageReader` of Dagster 1.13 may see the first half of a line that is just being written; its
    thread then dies with a traceback, and all that the job says later is lost.
    """

    @contextmanager
    def read_messages(self, handler: dg.PipesMessageHandler) -> Iterator[PipesParams]:
        """Read while the job runs; gives what the job needs to know to write."""
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
        """What Dagster adds to its warning that a job has never said anything."""
        return "Read a temporary file of this machine."


def _forward(path: Path, handler: dg.PipesMessageHandler, has_ended: Callable[[], bool]) -> None:
    """Hand over each whole line; what a killed job left of one is dropped."""
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
