"""The cluster under test: commands for the checks, and cleanup of their temporary files."""

import contextlib
import secrets
import shlex
import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from pathlib import Path, PurePosixPath

from gradsim.environment import Environment
from gradsim.errors import ClusterError
from resources.slurm.connection import SECONDS_TO_ANSWER, Answer, Connection
from resources.slurm.files import SECONDS_TO_BE_SEEN
from resources.slurm.script import python_command, setup_lines
from resources.slurm.site import Site

# Imports from an environment on a busy network file system are slow.
_SECONDS_TO_IMPORT = 300

# The login check must open a new connection instead of sharing an existing one.
_CONNECTION_OF_ITS_OWN = ("-o", "ControlPath=none")


class Cluster:
    """A cluster under test. All files and jobs of the checks are removed when the block ends.

    Attributes:
        environment: Environment of this machine.
        say: Callback for progress messages.
        seconds_to_start: Maximum number of seconds that the test job may wait in the queue.
        seconds_to_be_seen: Maximum number of seconds until a new file is visible on other machines.
        name: Unique name of everything that this run of the checks writes and submits.
        submitted: Whether the test job was submitted.
    """

    def __init__(
        self,
        environment: Environment,
        say: Callable[[str], None],
        *,
        seconds_to_start: float,
        seconds_to_be_seen: float = SECONDS_TO_BE_SEEN,
    ) -> None:
        self.environment = environment
        self.say = say
        self.seconds_to_start = seconds_to_start
        self.seconds_to_be_seen = seconds_to_be_seen
        self.name = f"gradsim-check-{secrets.token_hex(4)}"
        self.submitted = False

    def __enter__(self) -> "Cluster":
        return self

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self.token_folder, ignore_errors=True)
        if "site" in self.__dict__:  # it was reached
            folder = shlex.quote(str(self.folder))
            cancel = f"scancel --name={self.name}; " if self.submitted else ""
            with contextlib.suppress(ClusterError):
                self.ask(f"{cancel}rm -rf {folder}; rmdir {shlex.quote(str(self.folder.parent))} 2>/dev/null || true")

    @cached_property
    def settings(self) -> Site:
        """Site as configured, without contacting it.

        Raises:
            ClusterError: A setting is missing or has an invalid value.
        """
        return Site.read()

    @cached_property
    def _connection(self) -> Connection:
        return Connection(self.settings, self.say)

    @cached_property
    def site(self) -> Site:
        """Site with its user's home folder.

        Raises:
            ClusterError: The cluster does not answer.
        """
        return self._connection.at_home(seconds=0)

    def log_in(self) -> Site:
        """Log in over a new connection, and return the site. A connection left open would not test these settings.

        Raises:
            ClusterError: The login is refused, or the cluster does not answer.
        """
        ssh = self.settings.ssh
        ssh = ssh.model_copy(update={"extra_opts": [*_CONNECTION_OF_ITS_OWN, *ssh.extra_opts]})
        Connection(replace(self.settings, ssh=ssh), self.say).at_home(seconds=0)
        return self.site

    @property
    def folder(self) -> PurePosixPath:
        """Folder of the checks' files on the cluster."""
        return self.site.base / "checks" / self.name

    @property
    def token_folder(self) -> Path:
        """Folder of the checks' files in the local data root."""
        return self.environment.data_root / f".{self.name}"

    def ask(self, command: str, source: bytes = b"", *, timeout: float = SECONDS_TO_ANSWER) -> Answer:
        """Run a command, which has to be idempotent, on the login node and return its answer.

        Raises:
            ClusterError: There was no answer for a minute.
        """
        return self._connection.patiently(command, source, timeout=timeout, seconds=SECONDS_TO_ANSWER)

    def ask_python(self, code: str) -> Answer:
        """Run code with the site's Python on the login node, started as jobs start it, and return its answer.

        Raises:
            ClusterError: There was no answer for several minutes.
        """
        command = f"cd /; {setup_lines(self.site)}{python_command(self.site)} -c {shlex.quote(code)}"
        return self.ask(command, timeout=_SECONDS_TO_IMPORT)

    def write(self, files: dict[str, str]) -> None:
        """Write files (name -> text) into the checks' folder on the cluster.

        Raises:
            ClusterError: A file cannot be written.
        """
        folder = shlex.quote(str(self.folder))
        for name, text in files.items():
            answer = self.ask(f"umask 077; mkdir -p {folder} && cat > {folder}/{name}", text.encode())
            if answer.status:
                raise ClusterError(f"{self.folder}: cannot be written ({answer.complaint}); make room there")

    def is_seen(self, look: Callable[[], bool]) -> bool:
        """Return whether a look succeeds within `seconds_to_be_seen`, the delay of a network file system."""
        end = time.monotonic() + self.seconds_to_be_seen
        while not look():
            if time.monotonic() > end:
                return False
            self.say("waiting for the network file system")
            time.sleep(min(1.0, self.seconds_to_be_seen))
        return True
