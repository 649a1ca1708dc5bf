"""The cluster that is checked: how to ask it, and what the check leaves there for a while."""

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

# An environment on a busy network file system takes long to import from.
_SECONDS_TO_IMPORT = 300

# Of one check: the first connection of all, which others share, must not stand for it.
_CONNECTION_OF_ITS_OWN = ("-o", "ControlPath=none")


class Cluster:
    """A cluster while it is checked; what was written for that goes when the block ends.

    Attributes:
        environment: this machine.
        say: takes what goes on meanwhile.
        seconds_to_start: how long a job is waited for until it runs.
        seconds_to_be_seen: how long a new file may take to be seen elsewhere.
        name: of what this check writes and submits; no other's.
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
        """The site as the settings say, not asked yet.

        Raises:
            ClusterError: a setting is missing, or holds what it cannot hold.
        """
        return Site.read()

    @cached_property
    def _connection(self) -> Connection:
        return Connection(self.settings, self.say)

    @cached_property
    def site(self) -> Site:
        """The site.

        Raises:
            ClusterError: it does not answer.
        """
        return self._connection.at_home(seconds=0)

    def log_in(self) -> Site:
        """The site, asked over a new connection: one that lives on from before tells nothing of these settings.

        Raises:
            ClusterError: it does not answer.
        """
        ssh = self.settings.ssh
        ssh = ssh.model_copy(update={"extra_opts": [*_CONNECTION_OF_ITS_OWN, *ssh.extra_opts]})
        Connection(replace(self.settings, ssh=ssh), self.say).at_home(seconds=0)
        return self.site

    @property
    def folder(self) -> PurePosixPath:
        """What is ours on the cluster."""
        return self.site.base / "checks" / self.name

    @property
    def token_folder(self) -> Path:
        """What is ours in the data root here."""
        return self.environment.data_root / f".{self.name}"

    def ask(self, command: str, source: bytes = b"", *, timeout: float = SECONDS_TO_ANSWER) -> Answer:
        """What a command on the login node answers; it may run twice.

        Raises:
            ClusterError: nothing for a minute.
        """
        return self._connection.patiently(command, source, timeout=timeout, seconds=SECONDS_TO_ANSWER)

    def ask_python(self, code: str) -> Answer:
        """What the site's Python answers on the login node, started as jobs start it.

        Raises:
            ClusterError: nothing for minutes.
        """
        command = f"cd /; {setup_lines(self.site)}{python_command(self.site)} -c {shlex.quote(code)}"
        return self.ask(command, timeout=_SECONDS_TO_IMPORT)

    def write(self, files: dict[str, str]) -> None:
        """Write files into our folder there.

        Raises:
            ClusterError: they cannot be written.
        """
        folder = shlex.quote(str(self.folder))
        for name, text in files.items():
            answer = self.ask(f"umask 077; mkdir -p {folder} && cat > {folder}/{name}", text.encode())
            if answer.status:
                raise ClusterError(f"{self.folder}: cannot be written ({answer.complaint}); make room there")

    def is_seen(self, look: Callable[[], bool]) -> bool:
        """Whether something is seen within the time that a network file system takes for it."""
        end = time.monotonic() + self.seconds_to_be_seen
        while not look():
            if time.monotonic() > end:
                return False
            self.say("waiting for the network file system")
            time.sleep(min(1.0, self.seconds_to_be_seen))
        return True
