"""What a job says over Dagster's pipes, fed to its reader by whoever looks at the job."""

import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import dagster as dg
from dagster_pipes import PipesDefaultMessageWriter, PipesParams


class FedMessageReader(dg.PipesMessageReader):
    """Hands over whole lines of a file on the cluster, of which it is given each new piece.

    An outage delays messages and loses none: where to go on is known in bytes.
    """

    def __init__(self, remote_path: str) -> None:
        self._remote_path = remote_path
        self._handler: dg.PipesMessageHandler | None = None
        self.read_bytes = 0

    @contextmanager
    def read_messages(self, handler: dg.PipesMessageHandler) -> Iterator[PipesParams]:
        """Take pieces while the block lasts; gives what the job needs to know to write."""
        self._handler = handler
        yield {PipesDefaultMessageWriter.FILE_PATH_KEY: self._remote_path}

    def feed(self, piece: bytes) -> bool:
        """Hand over the whole lines of a piece that begins where the last whole line ended; whether there were any."""
        assert self._handler is not None
        whole = piece[: piece.rfind(b"\n") + 1]
        self.read_bytes += len(whole)
        for line in whole.splitlines():
            # A job that was killed may leave half a line, which its next life goes on behind; a dead node even less.
            with suppress(ValueError):
                self._handler.handle_message(json.loads(line))
        return bool(whole)

    def no_messages_debug_text(self) -> str:
        """What Dagster adds to its warning that a job has never said anything."""
        return f"Looked at {self._remote_path} on the cluster."
