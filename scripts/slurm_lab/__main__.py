"""A disposable Slurm cluster on this machine, for tests and experiments.

    scripts/slurm-lab start DIR     start all daemons: munge, accounting, slurmctld, nodes with fake GPUs, sshd
    scripts/slurm-lab stop DIR      cancel all jobs and stop all daemons

It requires root, but not systemd. It writes only to DIR and serves only this machine. `DIR/env.sh` sets the variables
that a client needs to connect through ssh. Jobs are processes on this machine. Partition `high` preempts `gpu`, and
both preempt `low`.

To simulate faults, stop and start single daemons. `stop DIR --only sshd` also closes open sessions, like an outage.
`stop DIR --only slurmd-lab1 --kill` kills a node and its jobs without notifying the controller, like a power failure.
"""

import argparse
import contextlib
import json
import os
import re
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from configuration import Cluster, Settings
from errors import LabError, NotPossibleHereError
from life import purge, start, stop
from ports import free_range
from processes import find_program

PACKAGES = {
    "munged": "munge",
    "slurmctld": "slurm-wlm",
    "slurmd": "slurm-wlm",
    "sbatch": "slurm-wlm",
    "sshd": "openssh-server",
    "ssh-keygen": "openssh-client",
    "slurmdbd": "slurmdbd",
    "mariadbd": "mariadb-server",
    "mariadb-install-db": "mariadb-server",
}
FOR_ACCOUNTING = {"slurmdbd", "mariadb-server"}

SETTINGS_FILE = "lab.json"
ASKED_FOR = ("nodes", "cpus", "gpus", "memory", "port", "accounting")
MOST_NODES = 28
LONGEST_FOLDER = 60  # unix socket paths are limited to 107 characters, and job steps append to the folder's path
STATUS_NOT_POSSIBLE_HERE = 3


def main() -> int:
    """Run the command line, and return the exit status."""
    parser = _parser()
    options = parser.parse_args()
    if options.command == "stop" and (options.purge if options.only else options.kill):
        parser.error("--purge requires the whole lab, --kill requires a daemon named with --only")
    folder = options.folder.resolve()
    try:
        if options.command == "start":
            _start(folder, options)
        else:
            _stop(folder, options)
    except LabError as error:
        print(f"slurm-lab: {error}", file=sys.stderr)
        return STATUS_NOT_POSSIBLE_HERE if isinstance(error, NotPossibleHereError) else 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="slurm-lab", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    starting = commands.add_parser("start", help="start all daemons that are not running")
    starting.add_argument("--nodes", type=int, choices=range(1, MOST_NODES + 1), metavar="N", help="default: 2")
    starting.add_argument("--cpus", type=int, metavar="N", help="CPUs per node; default: 4")
    starting.add_argument("--gpus", type=int, metavar="N", help="fake GPUs per node; default: 1")
    starting.add_argument("--memory", type=int, metavar="MB", help="memory per node; default: a share of most of it")
    starting.add_argument("--port", type=int, metavar="BASE", help="first port; default: a free range")
    starting.add_argument("--no-accounting", dest="accounting", action="store_const", const=False, help="without sacct")
    stopping = commands.add_parser("stop", help="stop all daemons that are running")
    stopping.add_argument("--purge", action="store_true", help="also delete DIR")
    stopping.add_argument("--kill", action="store_true", help="kill the daemon and all processes that it started")
    for command in (starting, stopping):
        command.add_argument("folder", metavar="DIR", type=Path)
        command.add_argument("--only", metavar="DAEMON", help="only this daemon, such as sshd or slurmd-lab1")
    return parser


def _start(folder: Path, options: argparse.Namespace) -> None:
    given = {name: value for name in ASKED_FOR if (value := getattr(options, name)) is not None}
    _check_folder(folder)
    with _settings(folder, given) as settings:
        _check_machine(settings)
        os.umask(0o022)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / SETTINGS_FILE).write_text(json.dumps(asdict(settings)), encoding="utf-8")
        start(Cluster(folder, settings), options.only)
    print(f"slurm-lab: ready; set the client's variables with {folder}/env.sh")


def _stop(folder: Path, options: argparse.Namespace) -> None:
    if not (folder / SETTINGS_FILE).is_file():
        print(f"slurm-lab: there is no lab in {folder}")
        return
    cluster = Cluster(folder, _stored_settings(folder))
    stop(cluster, options.only, options.kill)
    if options.purge:
        purge(cluster)


@contextlib.contextmanager
def _settings(folder: Path, given: dict[str, Any]) -> Iterator[Settings]:
    """Yield the settings of an existing lab or of a new one, and hold a new lab's ports while it starts.

    Raises:
        LabError: The lab exists with other settings, or no ports are free.
    """
    if (folder / SETTINGS_FILE).is_file():
        settings = _stored_settings(folder)
        if other := [name for name, value in given.items() if getattr(settings, name) != value]:
            raise LabError(f"{folder} was made with other values of {', '.join(other)}; stop it with --purge first")
        yield settings
        return
    with free_range(folder, given.get("port")) as port:
        yield Settings(**{**given, "port": port})


def _stored_settings(folder: Path) -> Settings:
    return Settings(**json.loads((folder / SETTINGS_FILE).read_text(encoding="utf-8")))


def _check_folder(folder: Path) -> None:
    if len(str(folder)) > LONGEST_FOLDER or not re.fullmatch(r"[\w./+-]+", str(folder)):
        raise LabError(f"{folder}: Slurm requires a path of at most {LONGEST_FOLDER} characters, without blanks")
    if folder.exists() and any(folder.iterdir()) and not (folder / SETTINGS_FILE).is_file():
        raise LabError(f"{folder} contains other files; choose an empty or a new folder")


def _check_machine(settings: Settings) -> None:
    if os.geteuid() != 0:
        raise NotPossibleHereError("a lab's daemons require root; run this command as root")
    packages = {
        program: package
        for program, package in PACKAGES.items()
        if settings.accounting or package not in FOR_ACCOUNTING
    }
    missing = [program for program in packages if not find_program(program)]
    if missing:
        install = " ".join(dict.fromkeys(packages[program] for program in missing))
        verb = "is" if len(missing) == 1 else "are"
        raise NotPossibleHereError(f"{', '.join(missing)} {verb} not installed (apt-get install {install})")


if __name__ == "__main__":
    sys.exit(main())
