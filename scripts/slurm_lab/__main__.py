"""A throw-away Slurm cluster on this machine, for tests and for trying things out.

    scripts/slurm-lab start DIR     starts what does not run: munge, accounting, slurmctld, nodes with fake GPUs, sshd
    scripts/slurm-lab stop DIR      cancels all jobs and stops all daemons

It needs root but no systemd. What it writes lies in DIR, and it serves this machine only. `DIR/env.sh` tells a client
how to get there through ssh. Jobs are processes of this machine. Partition `high` preempts `gpu`, and both `low`.

Single daemons can be stopped and started, as faults: `stop DIR --only sshd` ends open sessions too, as an outage would;
`stop DIR --only slurmd-lab1 --kill` ends a node and its jobs without a word to the controller, as a power cut would.
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
LONGEST_FOLDER = 60  # the path of a unix socket is at most 107 long, and a job step adds its name to the folder's
STATUS_NOT_POSSIBLE_HERE = 3


def main() -> int:
    """Do what the command line says."""
    parser = _parser()
    options = parser.parse_args()
    if options.command == "stop" and (options.purge if options.only else options.kill):
        parser.error("--purge is for the whole lab, --kill for one daemon that --only names")
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
    starting = commands.add_parser("start", help="start what does not run")
    starting.add_argument("--nodes", type=int, choices=range(1, MOST_NODES + 1), metavar="N", help="default: 2")
    starting.add_argument("--cpus", type=int, metavar="N", help="of each node; default: 4")
    starting.add_argument("--gpus", type=int, metavar="N", help="of each node, fake ones; default: 1")
    starting.add_argument("--memory", type=int, metavar="MB", help="of each node; default: most of what there is")
    starting.add_argument("--port", type=int, metavar="BASE", help="the first port; default: where enough are free")
    starting.add_argument("--no-accounting", dest="accounting", action="store_const", const=False, help="without sacct")
    stopping = commands.add_parser("stop", help="stop what runs")
    stopping.add_argument("--purge", action="store_true", help="delete DIR too")
    stopping.add_argument("--kill", action="store_true", help="kill the daemon, and all processes that it began")
    for command in (starting, stopping):
        command.add_argument("folder", metavar="DIR", type=Path)
        command.add_argument("--only", metavar="DAEMON", help="this one alone, such as sshd or slurmd-lab1")
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
    print(f"slurm-lab: ready; its variables are in {folder}/env.sh")


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
    """What the lab was made with, or is now: with ports that are kept for it while it starts."""
    if (folder / SETTINGS_FILE).is_file():
        settings = _stored_settings(folder)
        if other := [name for name, value in given.items() if getattr(settings, name) != value]:
            raise LabError(f"{folder} was made with another {' and '.join(other)}; stop it with --purge first")
        yield settings
        return
    with free_range(folder, given.get("port")) as port:
        yield Settings(**{**given, "port": port})


def _stored_settings(folder: Path) -> Settings:
    return Settings(**json.loads((folder / SETTINGS_FILE).read_text(encoding="utf-8")))


def _check_folder(folder: Path) -> None:
    if len(str(folder)) > LONGEST_FOLDER or not re.fullmatch(r"[\w./+-]+", str(folder)):
        raise LabError(f"Slurm wants a folder of at most {LONGEST_FOLDER} characters, without blanks: {folder}")
    if folder.exists() and any(folder.iterdir()) and not (folder / SETTINGS_FILE).is_file():
        raise LabError(f"there is something else in {folder}")


def _check_machine(settings: Settings) -> None:
    if os.geteuid() != 0:
        raise NotPossibleHereError("a lab's daemons need root; you are not")
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
