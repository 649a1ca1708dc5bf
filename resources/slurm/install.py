"""Installation of the jobs' environment, this checkout's code and its dependencies, with the cluster's own pip.

The environment is built in its final place, because virtual environments cannot be moved, by a script that survives a
lost connection. A stamp file marks a complete environment; one without the stamp is built again.
"""

import importlib.util
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import gradsim
from gradsim.errors import ClusterError
from gradsim.partition_job import code_version
from resources.slurm.connection import Answer, Connection
from resources.slurm.script import PRINT_CODE_VERSION, archive, python_command, setup_lines
from resources.slurm.site import Site

STAMP = "gradsim-installed"

CONSTRAINTS = "constraints.txt"

# Contents of the wheel. The rest of a checkout, such as an old `build` folder, must not get into it.
_PACKAGES, _FILES = ("gradsim", "gradsim_assets", "resources"), ("pyproject.toml", "README.md", "LICENSE")

_SCRIPT, _LOG, _STATUS = "install.sh", "install.log", "exit_status"

_PYTHONS = ((3, 11), (3, 12))

# Maximum length of an outage.
_SECONDS_TO_ANSWER = 300

_SHOWN_LINES = 15

# Exit statuses of the commands below.
_NO_ROOM, _ENDED, _DIED, _AT_WORK = 4, 5, 6, 7

# Pattern in pip's output -> the fix.
_FIXES = {
    r"No space left|[Qq]uota exceeded": "make room there (pip caches downloads in ~/.cache/pip: PIP_CACHE_DIR), or "
    "set SLURM_REMOTE_BASE elsewhere",
    r"No matching distribution|ResolutionImpossible|Connection|name resolution|Timeout|ProxyError|SSLError": (
        "the login node must reach a package index that has these versions; set PIP_INDEX_URL, PIP_PROXY or "
        "PIP_FIND_LINKS in SLURM_SETUP"
    ),
    r"ensurepip|No module named venv": "this SLURM_PYTHON cannot create environments; set it to another one",
    r"module: command not found": "begin SLURM_SETUP with `source /etc/profile`",
    r"gradsim is \S+ there, not": "the checkout changed during the installation: run it again",
    r"Killed|Cannot allocate memory": "the login node killed it; ask its operators where to install",
}


class InstallError(ClusterError):
    """Error raised if an installation fails on the cluster.

    Attributes:
        log: Last lines of the installation's log.
    """

    def __init__(self, message: str, log: str) -> None:
        super().__init__(message)
        self.log = log


class Installation:
    """Environment of this version of the code on the cluster."""

    def __init__(self, site: Site, connection: Connection, say: Callable[[str], None]) -> None:
        self._site = site
        self._connection = connection
        self._say = say
        # Beside the environment, which is removed as a whole before it is built again.
        self._folder = site.environment.with_name(f"{site.environment.name}.install")

    @classmethod
    def open(cls, say: Callable[[str], None]) -> "Installation":
        """Return the installation for the cluster that the settings name.

        Args:
            say: Callback for progress messages.

        Raises:
            ClusterError: The cluster cannot be reached, or `SLURM_ENVIRONMENT` names the user's own environment.
        """
        site = Site.read()
        if site.settings.environment:
            raise ClusterError(
                f"SLURM_ENVIRONMENT={site.settings.environment} is your own environment, which gradsim does not "
                "change; install there yourself (pip install --constraint constraints.txt '.[node]'), or unset it"
            )
        connection = Connection(site, say)
        return cls(connection.at_home(seconds=0), connection, say)

    def run(self) -> str:
        """Install the environment unless it is there already, and return a line about the outcome.

        Raises:
            InstallError: The installation failed on the cluster.
            ClusterError: The installation cannot be started.
        """
        environment = self._site.environment
        if self._ask(f"test -e {shlex.quote(str(environment / STAMP))}").status == 0:
            return f"{environment} is already installed"
        self._refuse_python()
        began = time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            self._say("building a wheel of this checkout")
            wheel = build_wheel(Path(folder))
            self._begin(wheel)
        self._wait()
        return f"{environment} is installed, {_duration(time.monotonic() - began)}"

    def others(self) -> dict[str, str]:
        """Return the environments of other versions on the cluster, and their sizes; "?" if counting takes too long."""
        base = shlex.quote(str(self._site.environment.parent))
        name = self._site.environment.name
        command = (
            f"cd {base} || exit; for each in gradsim-*; do case $each in {name}|{name}.install|'gradsim-*') ;; "
            '*) echo "$each|$(timeout 20 du -sk "$each" 2>/dev/null | cut -f1)";; esac; done'
        )
        answer = self._connection.patiently(command, timeout=600, seconds=_SECONDS_TO_ANSWER)
        rows = (line.partition("|") for line in answer.text.splitlines())
        return {
            str(self._site.environment.parent / folder): _size(1024 * int(size)) if size else "?"
            for folder, _, size in rows
        }

    @property
    def removal(self) -> str:
        """Command that removes an environment; replace `FOLDER` with the environment's path."""
        ssh = self._site.ssh
        port = "" if ssh.port == 22 else f"-p {ssh.port} "
        return f"ssh {port}{ssh.user}@{ssh.host} rm -r FOLDER"

    # -- before ------------------------------------------------------------------------------

    def _refuse_python(self) -> None:
        self._say("looking for Python")
        python = f"{self._site.settings.container} {shlex.quote(self._site.settings.python)}".strip()
        answer = self._ask(f"cd /; {setup_lines(self._site)}{python} -c 'import sys; print(*sys.version_info[:3])'")
        name = f"{self._site.address}: SLURM_PYTHON={self._site.settings.python}"
        fix = (
            "set it to a Python 3.11 or 3.12 on the cluster, such as /usr/bin/python3.12, or load one in SLURM_SETUP "
            "(source /etc/profile; module load ...)"
        )
        version = answer.text.splitlines()[-1] if answer.text else ""
        if answer.status or not re.fullmatch(r"\d+ \d+ \d+", version):
            said = (answer.errors.splitlines() or [f"exit status {answer.status}"])[-1]
            raise ClusterError(f"{name} cannot be run ({said}); {fix}")
        major, minor, _ = map(int, version.split())
        if (major, minor) not in _PYTHONS:
            raise ClusterError(f"{name} is Python {version.replace(' ', '.')}; {fix}")

    def _begin(self, wheel: Path) -> None:
        """Start the installation script on the cluster, unless one is already running."""
        constraints = wheel.parent / CONSTRAINTS
        shutil.copyfile(checkout() / CONSTRAINTS, constraints)
        (wheel.parent / _SCRIPT).write_text(self._script(wheel.name), encoding="utf-8")
        files = archive({path.name: path.read_bytes() for path in (wheel, constraints, wheel.parent / _SCRIPT)})
        folder = shlex.quote(str(self._folder))
        answer = self._ask(
            f"mkdir -p {folder} && cd {folder} || exit {_NO_ROOM}\n"
            # The script inherits the lock and holds it until it exits. Not every file system supports locks.
            f"exec 9>>lock; flock -n 9; [ $? = 1 ] && exit {_AT_WORK}\n"
            f"rm -f {_LOG} {_STATUS}; tar -xf - && : > {_LOG} || exit {_NO_ROOM}\n"
            f"setsid bash {_SCRIPT} </dev/null >{_LOG} 2>&1 &",
            files,
        )
        if answer.status == _AT_WORK:
            self._say("another process is installing it already; waiting for it")
        elif answer.status:
            raise ClusterError(
                f"{self._folder} cannot be written ({answer.errors}); set SLURM_REMOTE_BASE to a folder that you can "
                "write and that has room"
            )

    def _script(self, wheel: str) -> str:
        site, environment = self._site, shlex.quote(str(self._site.environment))
        container = site.settings.container
        python, first_python = python_command(site), f"{container} {shlex.quote(site.settings.python)}".strip()
        pip = f"{python} -m pip --disable-pip-version-check --no-input"
        package = shlex.quote(f"./{wheel}[adapters,gguf,node,quantized]")
        return (
            "#!/bin/bash\n"
            f"gradsim_folder=$PWD; trap 'echo $? > \"$gradsim_folder/{_STATUS}\"' EXIT\n"
            f"{setup_lines(site)}"
            "set -e\n"
            'cd "$gradsim_folder"\n'
            f"rm -rf {environment}\n"
            f"{first_python} -m venv {environment}\n"
            f"{pip} install --progress-bar off --constraint {CONSTRAINTS} {package}\n"
            f"found=$({python} -c {shlex.quote(PRINT_CODE_VERSION)})\n"
            f'[ "$found" = {code_version()} ] || {{ echo "gradsim is $found there, not {code_version()}"; exit 3; }}\n'
            f'echo "$found" > {environment}/{STAMP}\n'
        )

    # -- meanwhile ---------------------------------------------------------------------------

    def _wait(self) -> None:
        """Wait until the script has ended. If the wait is interrupted, the script goes on and the next call resumes."""
        began = time.monotonic()
        # Test the lock first: once the script is dead, its last output is already written.
        command = (
            f"cd {self._quoted()} && exec 9>>lock && flock -n 9 && dead=yes\n"
            f"tail -n 1 {_LOG}; cat {_STATUS} 2>/dev/null && exit {_ENDED}\n"
            f'[ -z "$dead" ] || exit {_DIED}'
        )
        while (answer := self._ask(command)).status not in {_ENDED, _DIED}:
            said = answer.text.splitlines()[-1].strip() if answer.text else "starting"
            self._say(f"{_duration(time.monotonic() - began)}  {said}")
            time.sleep(1)
        status = answer.text.splitlines()[-1] if answer.status == _ENDED else "unknown: it was killed"
        if status != "0":
            raise self._failure(status)
        self._ask(f"mv {self._quoted(_LOG)} {shlex.quote(str(self._site.environment))}/; rm -rf {self._quoted()}")

    def _failure(self, status: str) -> InstallError:
        log = self._ask(f"tail -n {_SHOWN_LINES} {self._quoted(_LOG)}").text
        fix = next((f"{fix}; " for pattern, fix in _FIXES.items() if re.search(pattern, log)), "")
        return InstallError(
            f"{self._site.address}: installation failed with exit status {status}; {fix}its log: {self._folder / _LOG}",
            log,
        )

    def _quoted(self, name: str = "") -> str:
        return shlex.quote(str(self._folder / name))

    def _ask(self, command: str, source: bytes = b"") -> Answer:
        return self._connection.patiently(command, source, timeout=120, seconds=_SECONDS_TO_ANSWER)


def _size(size: int) -> str:
    """Return a number of bytes as text, for example `5.4 GB`."""
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"


def _duration(seconds: float) -> str:
    """Return a duration as minutes and seconds, for example `2:05`."""
    return f"{int(seconds) // 60}:{int(seconds) % 60:02}"


def checkout() -> Path:
    """Return the folder of the checkout that this code runs from.

    Raises:
        ClusterError: The code was installed without a checkout.
    """
    folder = Path(gradsim.__file__).resolve().parents[1]
    if not all((folder / name).exists() for name in (*_PACKAGES, *_FILES, CONSTRAINTS)):
        raise ClusterError(
            f"gradsim runs from {folder}, which is not a source checkout; run this command from one, or create an "
            "environment on the cluster yourself and set SLURM_ENVIRONMENT"
        )
    return folder


def build_wheel(folder: Path) -> Path:
    """Build a wheel of this checkout in a folder, and return its path.

    Raises:
        ClusterError: There is no checkout, or the build failed.
    """
    source = folder / "source"
    for name in _PACKAGES:
        shutil.copytree(checkout() / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in _FILES:
        shutil.copy(checkout() / name, source / name)
    built = subprocess.run(_build_command(source, folder), capture_output=True, text=True, check=False)
    wheels = sorted(folder.glob("*.whl"))
    if built.returncode or not wheels:
        said = (built.stderr or built.stdout).strip().splitlines()[-1:] or [f"exit status {built.returncode}"]
        raise ClusterError(f"cannot build a wheel of {checkout()} ({said[0]}); see: pip wheel --no-deps .")
    return wheels[0]


def _build_command(source: Path, folder: Path) -> list[str]:
    """Return the build command: pip's or, in an environment without pip (as uv makes them), uv's."""
    if importlib.util.find_spec("pip") or not (uv := shutil.which("uv")):
        return [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder), str(source)]
    return [uv, "build", "--quiet", "--wheel", "--out-dir", str(folder), str(source)]
