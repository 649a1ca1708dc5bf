"""Commands on the login node, over one shared ssh connection, with retries across network outages."""

import base64
import contextlib
import re
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain, repeat
from pathlib import Path
from typing import Any, BinaryIO

from gradsim.errors import ClusterError
from resources.slurm.site import Site

# Exit status of ssh if ssh itself failed.
SSH_FAILED = 255

# Timeout of a command, longer than a busy login node takes.
SECONDS_TO_ANSWER = 60

# Seconds between retries while the cluster cannot be reached; the last pause repeats.
_PAUSES = (1, 2, 4, 8, 15)

# Limits how often an ongoing outage is logged.
_SECONDS_BETWEEN_COMPLAINTS = 300

# Pattern in ssh's output -> the fix; the first match counts. Retrying fixes none of these.
_REFUSED = {
    r"invalid format|error in libcrypto|UNPROTECTED PRIVATE KEY": "SLURM_SSH_KEY cannot be used as a private key",
    r"Permission denied|Too many authentication failures": "the login was refused; SLURM_SSH_USER and SLURM_SSH_KEY "
    "must be a user of the cluster and that user's private key, registered there (ssh-copy-id -i KEY.pub)",
    r"REMOTE HOST IDENTIFICATION HAS CHANGED": "its host key differs from the known one; ask the cluster's "
    "operators, then correct SLURM_SSH_KNOWN_HOSTS_FILE",
    r"Host key verification failed": "its host key is not known; compare it with the one that the cluster's operators "
    "publish, then add it: ssh-keyscan -p {port} {host} >> {known_hosts}",
    r"too long for Unix domain socket": "the path of the shared ssh connection's socket is too long; set "
    "DAGSTER_SLURM_SSH_CONTROL_DIR to a short folder of your own, such as /tmp/$USER-ssh",
    r"Bad configuration option|command-line": "ssh rejects its options; correct SLURM_SSH_OPTS_EXTRA",
}


# Precedes a command's output; anything before it is the login shell's greeting.
_BEGIN = "=====gradsim-begins====="


class UnreachableError(Exception):
    """Error raised if the login node does not answer at the moment."""


@dataclass(frozen=True)
class Answer:
    """Exit status and output of a command on the login node."""

    status: int
    output: bytes
    errors: str

    @property
    def text(self) -> str:
        """Output as text."""
        return self.output.decode(errors="replace").strip()

    @property
    def complaint(self) -> str:
        """Last line of the error output, or of the output if there are no errors."""
        lines = [line.strip() for line in (self.errors or self.text).splitlines() if line.strip()]
        return lines[-1].removeprefix("sbatch: ").removeprefix("error: ") if lines else f"exit status {self.status}"


class Connection:
    """Runs shell commands on a site's login node.

    All commands share one connection (OpenSSH's ControlMaster, on dagster-slurm's socket), because login nodes limit
    the number of connections.
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
        """Run a command in a clean bash.

        Args:
            command: Shell command.
            source: Standard input.
            target: File that receives standard output; None to return it in the answer.
            timeout: Timeout in seconds.

        Raises:
            ClusterError: The login is refused, which a retry does not fix.
            UnreachableError: There was no answer. The command may or may not have run.
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
        """Run an idempotent command as `run` does, and retry for up to `seconds` while there is no answer.

        Raises:
            ClusterError: The login is refused, or there was no answer within `seconds`.
        """
        began = time.monotonic()
        complained = -float("inf")
        for pause in chain(_PAUSES, repeat(_PAUSES[-1])):
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
                    self._log(f"{self.site.address} cannot be reached ({error}); retrying until it can")
                    complained = now
                time.sleep(pause)
                continue
            if complained > began:
                self._log(f"{self.site.address} is back after {time.monotonic() - began:.0f} s")
            return answer
        raise AssertionError  # the pauses never end

    def at_home(self, *, seconds: float) -> Site:
        """Return the site with the user's home folder, read over the connection's first command.

        Raises:
            ClusterError: The login is refused, or the cluster does not answer within `seconds`.
        """
        self.site = self.site.with_home(self.patiently('printf %s "$HOME"', seconds=seconds).text)
        return self.site

    def drop(self) -> None:
        """Drop the shared connection, so that the next command opens a new one instead of hanging on a dead one."""
        path = self.site.ssh.control_socket_path()
        if path:
            # `stop` lets its other users finish. If even that gets no answer, the connection only loses its socket.
            command = ["ssh", "-O", "stop", "-o", f"ControlPath={path}", self.site.ssh.get_remote_target()]
            with contextlib.suppress(subprocess.TimeoutExpired):
                subprocess.run(command, capture_output=True, timeout=5, check=False)
            Path(path).unlink(missing_ok=True)

    def _refuse(self, errors: str) -> None:
        """Raise `ClusterError` with a fix if ssh's errors are permanent.

        A refusal after a successful login is treated as an outage.
        """
        if self._has_answered:
            return
        for pattern, fix in _REFUSED.items():
            if re.search(pattern, errors):
                ssh = self.site.ssh
                known_hosts = ssh.known_hosts_file or "~/.ssh/known_hosts"
                raise ClusterError(
                    f"{self.site.address}: {fix.format(host=ssh.host, port=ssh.port, known_hosts=known_hosts)}"
                )


def _in_bash(command: str) -> str:
    """Return a command that runs in bash whatever the login shell is; base64 protects quotes and line ends."""
    text = base64.b64encode(command.encode()).decode()
    return f"bash --noprofile --norc -c 'eval \"$(echo {text} | base64 -d)\"'"
