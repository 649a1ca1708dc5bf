"""Polling of one job: forwards its messages and log, and detects its end."""

import sys
import time
from collections.abc import Callable
from pathlib import PurePosixPath

from resources.messages import FedMessageReader
from resources.slurm.connection import Connection
from resources.slurm.job_state import JobEnd, Look, end_command, look_command, parse_end, parse_look

# A login node's view of a network file system may be this many seconds old.
SECONDS_TO_BE_SEEN, SECONDS_BETWEEN_LOOKS = 60, 3

# A state that a requeue may still change counts as final after this long.
SECONDS_TO_REQUEUE = 5


class JobWatch:
    """Observations of a job so far.

    Attributes:
        saw_something_new: Whether the last look found new output or a new state.
        never_starts_because: Why the job will never start, with the fix; "" if it has started or may start.
    """

    def __init__(
        self,
        connection: Connection,
        folder: PurePosixPath,
        job_id: int,
        reader: FedMessageReader,
        log: Callable[[str], None],
    ) -> None:
        self.saw_something_new = False
        self.never_starts_because = ""
        self._connection = connection
        self._folder = folder
        self._job_id = job_id
        self._reader = reader
        self._log = log
        self._log_bytes = 0
        self._state: str | None = ""
        self._reason = ""
        self._since = time.monotonic()

    def has_ended(self) -> bool:
        """Look at the job once, forward its new messages, log and state, and return whether it has ended.

        Waits through outages until the cluster answers.
        """
        command = look_command(self._folder, self._job_id, self._reader.read_bytes, self._log_bytes)
        look = parse_look(self._connection.patiently(command))
        said = self._pass_on(look)
        changed = look.state != self._state
        if changed or (look.state == "PENDING" and look.reason != self._reason):
            self._log(self._described(look))
        if changed:
            self._since = time.monotonic()
        self._state, self._reason = look.state, look.reason
        if look.will_never_start and not changed:
            self.never_starts_because = look.why_never(self._job_id)
        self.saw_something_new = said or changed
        settled = look.state not in {"NODE_FAIL", "PREEMPTED"} or time.monotonic() - self._since > SECONDS_TO_REQUEUE
        return look.has_ended and settled and not said

    def end(self) -> JobEnd:
        """Return how the job ended. Call this only once `has_ended` has returned true."""
        deadline = time.monotonic() + SECONDS_TO_BE_SEEN
        while True:
            answer = self._connection.patiently(end_command(self._folder, self._job_id), timeout=120)
            end = parse_end(answer, self._job_id, self._state or "")
            if not end.lacks_files or time.monotonic() > deadline:
                return end
            time.sleep(SECONDS_BETWEEN_LOOKS)

    def _pass_on(self, look: Look) -> bool:
        sys.stdout.write(look.log.decode(errors="replace"))
        sys.stdout.flush()
        self._log_bytes += len(look.log)
        return self._reader.feed(look.messages) or bool(look.log)

    def _described(self, look: Look) -> str:
        if look.state is None:
            return f"Slurm does not answer ({look.reason.splitlines()[-1]}); waiting for it"
        reason = f" ({look.reason})" if look.reason not in {"", "None"} else ""
        return f"Slurm job {self._job_id}: {(look.state or 'gone from the queue').lower()}{reason}"
