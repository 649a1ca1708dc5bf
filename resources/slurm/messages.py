"""Reader for the Dagster Pipes messages of a job on the cluster, fed by the code that polls the job."""

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import dagster as dg
from dagster_pipes import PipesDefaultMessageWriter, PipesParams

from resources.messages import handle_message


class FedMessageReader(dg.PipesMessageReader):
    """Message reader that receives a file on the cluster piece by piece and handles its complete lines.

    An outage delays messages but loses none, because reading resumes at a byte offset.

    Args:
        remote_path: Path of the file on the cluster.
        log: Log of the step that waits for the job.
    """

    def __init__(self, remote_path: str, log: logging.Logger) -> None:
        self._remote_path = remote_path
        self._log = log
        self._handler: dg.PipesMessageHandler | None = None
        self.read_bytes = 0

    @contextmanager
    def read_messages(self, handler: dg.PipesMessageHandler) -> Iterator[PipesParams]:
        """Accept pieces while the block runs; yield the parameters that the job's message writer needs."""
        self._handler = handler
        yield {PipesDefaultMessageWriter.FILE_PATH_KEY: self._remote_path}

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
        return f"Looked at {self._remote_path} on the cluster."
