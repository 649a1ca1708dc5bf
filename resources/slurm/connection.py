"""Commands on the login node: one ssh connection that all share, patient with a network that is not."""

import base64
import contextlib
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain, repeat
from pathlib import Path
from typing import Any, BinaryIO

from gradsim.errors import ClusterError
from resources.slurm.site import Site

# ssh's own exit status when it is ssh that failed.
SSH_FAILED = 255

# Longer than a busy login node takes; what takes longer hangs.
SECONDS_TO_ANSWER = 60

# Between tries while the cluster cannot be reached, the last one for ever.
_PAUSES = (1, 2, 4, 8, 15)

# What a person must be told at most this often.
_SECONDS_BETWEEN_COMPLAINTS = 300

# What ssh says -> how to mend it; the first that it says counts. Nothing of this mends itself.
_REFUSED = {
    r"invalid format|error in libcrypto|UNPROTECTED PRIVATE KEY": "SLURM_SSH_KEY cannot be used as a private key",
    r"Permission denied|Too many authentication failures": "the login was refused; SLURM_SSH_USER and SLURM_SSH_KEY "
    "must be a user of the cluster and the private key whose public half it knows (ssh-copy-id -i KEY.pub)",
    r"REMOTE HOST IDENTIFICATION HAS CHANGED": "its host key is another than the known one; ask the cluster's "
    "operators, then correct SLURM_SSH_KNOWN_HOSTS_FILE",
    r"Host key verification failed": "its host key is not known; compare it with what the cluster's operators publish, "
    "then add it: ssh-keyscan -p {port} {host} >> {known_hosts}",
    r"too long for Unix domain socket": "the path of the shared connection's socket is too long; set "
    "DAGSTER_SLURM_SSH_CONTROL_DIR to a short folder of your own, such as /tmp/$USER-ssh",
    r"Bad configuration option|command-line": "ssh does not understand its options (SLURM_SSH_OPTS_EXTRA)",
}


# Before what a command prints; what comes earlier a shell has said that greets whoever logs in.
_BEGIN = "=====gradsim-begins====="


class UnreachableError(Exception):
    """The login node does not answer now; it may later."""


@dataclass(frozen=True)
class Answer:
    """What a command on the login node gave."""

    status: int
    output: bytes
    errors: str

    @property
    def text(self) -> str:
        """The output as text."""
        return self.output.decode(errors="replace").strip()

    @property
    def complaint(self) -> str:
        """What was said last of what is wrong, in one line."""
        lines = [line.strip() for line in (self.errors or self.text).splitlines() if line.strip()]
        return lines[-1].removeprefix("sbatch: ").removeprefix("error: ") if lines else f"exit status {self.status}"


class Connection:
    """Runs shell commands on a site's login node.

    Commands share one connection (OpenSSH's ControlMaster, as dagster-slurm names its socket): login nodes count them.
    """

    def __init__(self, site: Site, log: Callable[[str], None]) -> None:
        self.site = site
        self._log = log
        self._has_answered = False

    def run(
        self,
        command: str,
        source: bytes | BinaryIO = b"",
        *,
        target: BinaryIO | None = None,
        timeout: float = SECONDS_TO_ANSWER,
    ) -> Answer:
        """Run a command in a clean shell.

        Args:
            command: of the login node's shell.
            source: what it reads.
            target: file that takes what it prints; None: the answer does.
            timeout: seconds.

        Raises:
            ClusterError: the login is refused, which does not mend itself.
            UnreachableError: there was no answer, and it is not known whether the command ran.
        """
        remote = _in_bash(command if target else f"printf %s {_BEGIN}; {command}")
        reads: dict[str, Any] = {"input": source} if isinstance(source, bytes) else {"stdin": source}
        try:
            process = subprocess.run(
                [*self.site.ssh.get_ssh_base_command(), remote],
                **reads,
                stdout=target or subprocess.PIPE,
                stderr=subprocess.PIPE,
                timeout=timeout,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            self.drop()
            raise UnreachableError(f"no answer within {timeout:.0f} s") from error
        except FileNotFoundError as error:
            raise ClusterError("ssh is not installed here; install OpenSSH's client") from error
        errors = process.stderr.decode(errors="replace").strip()
        if process.returncode == SSH_FAILED:
            self._refuse(errors)
            raise UnreachableError(errors.splitlines()[-1] if errors else "the connection was closed")
        self._has_answered = True
        _, _, output = (process.stdout or b"").partition(_BEGIN.encode())
        return Answer(process.returncode, output, errors)

    def patiently(
        self,
        command: str,
        source: bytes | BinaryIO = b"",
        *,
        target: BinaryIO | None = None,
        timeout: float = SECONDS_TO_ANSWER,
        seconds: float = float("inf"),
    ) -> Answer:
        """The same for a command that may run twice: tries again while there is no answer, for so many `seconds`.

        Raises:
            ClusterError: the login is refused, or there was no answer in all that time.
        """
        began = time.monotonic()
        complained = -float("inf")
        for pause in self._pauses():
            for stream in (source, target):
                if stream is not None and not isinstance(stream, bytes):
                    stream.seek(0)
            if target is not None:
                target.truncate()
            try:
                answer = self.run(command, source, target=target, timeout=timeout)
            except UnreachableError as error:
                now = time.monotonic()
                if now - began > seconds:
                    raise ClusterError(
                        f"{self.site.address}: cannot be reached ({error}); are SLURM_SSH_HOST and _PORT right?"
                    ) from error
                if now - complained > _SECONDS_BETWEEN_COMPLAINTS:
                    self._log(f"{self.site.address} cannot be reached ({error}); trying again until it can")
                    complained = now
                time.sleep(pause)
                continue
            if complained > began:
                self._log(f"{self.site.address} is back after {time.monotonic() - began:.0f} s")
            return answer
        raise AssertionError  # the pauses never end

    def at_home(self, *, seconds: float) -> Site:
        """The site with its user's home folder; asking for it is the first contact.

        Raises:
            ClusterError: the cluster cannot be had within so many seconds.
        """
        self.site = self.site.with_home(self.patiently('printf %s "$HOME"', seconds=seconds).text)
        return self.site

    def drop(self) -> None:
        """Leave the shared connection, so that the next command makes a new one; a hung one would hang them all."""
        path = self.site.ssh.control_socket_path()
        if path:
            # Who still uses it may go on; one that does not even answer this is left alone with its socket gone.
            command = ["ssh", "-O", "stop", "-o", f"ControlPath={path}", self.site.ssh.get_remote_target()]
            with contextlib.suppress(subprocess.TimeoutExpired):
                subprocess.run(command, capture_output=True, timeout=5, check=False)
            Path(path).unlink(missing_ok=True)

    def _refuse(self, errors: str) -> None:
        """Where a login is refused that has worked before, something is away that may come back."""
        if self._has_answered:
            return
        for pattern, mend in _REFUSED.items():
            if re.search(pattern, errors):
                ssh = self.site.ssh
                known_hosts = ssh.known_hosts_file or "~/.ssh/known_hosts"
                raise ClusterError(
                    f"{self.site.address}: {mend.format(host=ssh.host, port=ssh.port, known_hosts=known_hosts)}"
                )

    @staticmethod
    def _pauses() -> Iterator[float]:
        return chain(_PAUSES, repeat(_PAUSES[-1]))


def _in_bash(command: str) -> str:
    """A command for bash, whatever shell the user has there: others read quotes and line ends in their own ways."""
    text = base64.b64encode(command.encode()).decode()
    return f"bash --noprofile --norc -c 'eval \"$(echo {text} | base64 -d)\"'"
