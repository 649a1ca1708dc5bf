"""Processes forked from a server that has already imported torch and transformers.

Importing them takes longer than a small job. Each job still has a process of its own, so a crash or an out-of-memory
kill ends nothing else. The server imports nothing that uses the GPU or starts threads that a fork would break.
"""

import multiprocessing
import os
import runpy
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib import import_module
from multiprocessing.connection import Connection, wait
from multiprocessing.reduction import recv_handle, send_handle

IMPORTED = (
    "torch",
    "transformers.generation",
    "transformers.modeling_utils",
    "transformers.models.auto.modeling_auto",
    "transformers.models.auto.tokenization_auto",
)

_FORK = multiprocessing.get_context("fork")

SECONDS_TO_END = 20
SECONDS_BETWEEN_LOOKS = 0.5


class JobServer:
    """Runs Python modules in forked processes, one at a time; the server and its job end with this process.

    Args:
        variables: Environment of the server. The C library and OpenMP read theirs when the server starts; all other
            variables are replaced for each job.
        imported: Modules that the server imports.
    """

    def __init__(self, variables: Mapping[str, str], imported: Sequence[str] = IMPORTED) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", __name__, str(theirs.fileno()), *imported],
                env=variables,
                pass_fds=[theirs.fileno()],
                process_group=0,
            )
        self._channel = Connection(ours.detach())

    def is_running(self) -> bool:
        """Return whether the server can run a job."""
        return self._process.poll() is None

    def run(self, arguments: Sequence[str], variables: Mapping[str, str], streams: Sequence[int] = (1, 2)) -> int:
        """Run `python -m ARGUMENTS`, and wait until it exits.

        An exception during the wait, such as KeyboardInterrupt, stops the job and the server.

        Args:
            arguments: Name of the module, and its arguments.
            variables: Environment of the job.
            streams: File descriptors for the job's output and errors.

        Returns:
            The exit status; the negative signal number if a signal killed the job.
        """
        try:
            self._channel.send((list(arguments), dict(variables)))
            for stream in streams:
                send_handle(self._channel, stream, self._process.pid)
            # A running job holds the other end of the channel, too, so a killed server does not close it.
            while not self._channel.poll(SECONDS_BETWEEN_LOOKS) and self.is_running():
                pass
            if self._channel.poll():
                status: int = self._channel.recv()
                return status
        except (EOFError, ConnectionError):
            pass  # the server was killed or could not import its modules
        except BaseException:
            self.stop()
            raise
        self.stop()
        return self._process.returncode

    def stop(self) -> None:
        """Stop the server and its job; kill them if they do not exit within `SECONDS_TO_END`."""
        self._channel.close()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(SECONDS_TO_END)
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


def serve(channel: Connection) -> None:
    """Fork a process for each requested job until the requesting process ends."""
    while True:
        try:
            arguments, variables = channel.recv()
        except EOFError:
            return
        streams = [recv_handle(channel) for _ in (1, 2)]
        job = _FORK.Process(target=_run_module, args=(channel, arguments, variables, streams))
        job.start()
        for stream in streams:
            os.close(stream)
        job.join()
        with suppress(OSError):  # the requesting process has ended
            channel.send(job.exitcode)


def _run_module(
    channel: Connection, arguments: Sequence[str], variables: Mapping[str, str], streams: Sequence[int]
) -> None:
    for number, stream in enumerate(streams, start=1):
        os.dup2(stream, number)
        os.close(stream)
    os.environ.clear()
    os.environ.update(variables)
    threading.Thread(target=_end_with_requester, args=(channel,), daemon=True).start()
    sys.argv = list(arguments)
    runpy.run_module(arguments[0], run_name="__main__", alter_sys=True)


def _end_with_requester(channel: Connection) -> None:
    """Exit when the requesting process ends; an orphaned job would compete with its successor."""
    wait([channel])
    os._exit(1)


if __name__ == "__main__":
    descriptor, *modules = sys.argv[1:]
    for name in modules:
        import_module(name)
    serve(Connection(int(descriptor)))
