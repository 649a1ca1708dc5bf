"""Daemons of a lab: foreground commands, readiness probes, and preparation."""

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from configuration import LOGIN_ADDRESS, Cluster
from errors import LabError
from processes import command_name, descendants, find_program, listens, processes_with, run, succeeds

ACCOUNT = "lab"
CHANGED_OR_NOTHING_TO_CHANGE = (0, 1)  # exit statuses of sacctmgr


def nothing() -> None:
    """Do nothing: default of the daemons' hooks."""


@dataclass(frozen=True, kw_only=True)
class Daemon:
    """Description of a daemon."""

    name: str
    command: list[str]
    serves: Callable[[], bool]
    port: int | None = None
    environment: dict[str, str] = field(default_factory=dict)
    before_start: Callable[[], None] = nothing
    after_start: Callable[[], None] = nothing
    sessions: Callable[[int], set[int]] = lambda _: set()  # processes that are stopped together with it
    work: Callable[[], set[int]] = set  # processes that keep running when it is stopped, unless it is killed


def all_daemons(cluster: Cluster) -> list[Daemon]:
    """Return all daemons of a lab in starting order."""
    accounting = [_mariadbd(cluster), _slurmdbd(cluster)] if cluster.settings.accounting else []
    nodes = [_slurmd(cluster, node) for node in cluster.node_ports]
    return [_munged(cluster), *accounting, _slurmctld(cluster), *nodes, _sshd(cluster)]


def choose(cluster: Cluster, only: str | None) -> list[Daemon]:
    """Return all daemons, or the one of that name.

    Raises:
        LabError: There is no such daemon.
    """
    daemons = all_daemons(cluster)
    if only and only not in (names := [daemon.name for daemon in daemons]):
        raise LabError(f"there is no daemon {only}; choose one of {', '.join(names)}")
    return [daemon for daemon in daemons if only in {None, daemon.name}]


def _munged(cluster: Cluster) -> Daemon:
    listening = f"{cluster.folder}/run/munge.sock"
    key = cluster.folder / "munge/key"

    def make_key() -> None:
        if not key.exists():
            key.touch(mode=0o600)
            key.write_bytes(os.urandom(128))

    files = {"key": key, "seed": cluster.folder / "munge/seed", "pid": cluster.pid_file("munged")}
    options = [f"--{name}-file={path}" for name, path in files.items()]
    return Daemon(
        name="munged",
        command=["munged", "--foreground", "--force", f"--socket={listening}", *options],
        serves=lambda: listens(listening),
        before_start=make_key,
    )


def _mariadbd(cluster: Cluster) -> Daemon:
    listening = cluster.environment["MYSQL_UNIX_PORT"]
    data = cluster.folder / "database"
    # Temporary tables of labs beside each other would have the same names.
    options = ["--no-defaults", "--user=root", f"--datadir={data}", f"--tmpdir={cluster.folder / 'run'}"]

    def make_database() -> None:
        if not data.exists():
            run(["mariadb-install-db", *options, "--skip-test-db"], cluster.environment)

    light = ["--skip-networking", "--innodb-buffer-pool-size=64M", "--innodb-flush-log-at-trx-commit=0"]
    return Daemon(
        name="mariadbd",
        command=["mariadbd", *options, f"--socket={listening}", *light],
        serves=lambda: listens(listening),
        before_start=make_database,
    )


def _slurmdbd(cluster: Cluster) -> Daemon:
    def change(*entry: str) -> None:
        run(["sacctmgr", "--immediate", *entry], cluster.environment, expected=CHANGED_OR_NOTHING_TO_CHANGE)

    def make_accounts() -> None:
        list_users = ["sacctmgr", "-nP", "list", "associations", f"account={ACCOUNT}", "format=user"]
        known = set(run(list_users, cluster.environment).split())
        for user in {"root", os.environ.get("SUDO_USER", "root")} - known:
            change("add", "cluster", "lab")
            change("add", "account", ACCOUNT)
            change("add", "user", user, f"account={ACCOUNT}")
            change(
                "modify", "user", user, "set", f"defaultaccount={ACCOUNT}"
            )  # root already has another default account

    return Daemon(
        name="slurmdbd",
        command=["slurmdbd", "-D"],
        serves=lambda: succeeds(["sacctmgr", "-n", "list", "cluster"], cluster.environment),
        port=cluster.accounting_port,
        after_start=make_accounts,
    )


def _slurmctld(cluster: Cluster) -> Daemon:
    return Daemon(
        name="slurmctld",
        command=["slurmctld", "-D"],
        serves=lambda: succeeds(["scontrol", "ping"], cluster.environment),
        port=cluster.controller_port,
    )


def _slurmd(cluster: Cluster, node: str) -> Daemon:
    port = cluster.node_ports[node]
    conf = cluster.environment["SLURM_CONF"]

    def steps_and_jobs() -> set[int]:
        steps = processes_with(SLURM_CONF=conf, SLURM_LAB_NODE=node)
        return steps | processes_with(SLURM_CONF=conf, SLURMD_NODENAME=node)

    return Daemon(
        name=f"slurmd-{node}",
        command=["slurmd", "-D", "-N", node],
        serves=lambda: listens((cluster.address, port)),
        port=port,
        environment={"SLURM_LAB_NODE": node},  # slurmstepd processes inherit it, jobs do not
        before_start=lambda: (cluster.folder / f"spool-{node}").mkdir(exist_ok=True),
        work=steps_and_jobs,
    )


def _sshd(cluster: Cluster) -> Daemon:
    folder = cluster.folder / "ssh"

    def make_keys() -> None:
        Path("/run/sshd").mkdir(exist_ok=True)  # sshd requires it
        for name in ("host", "id"):
            if not (folder / name).exists():
                command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "slurm-lab", "-f", f"{folder}/{name}"]
                run(command, cluster.environment)
        host_key = (folder / "host.pub").read_text(encoding="utf-8")
        (folder / "known_hosts").write_text(f"[{LOGIN_ADDRESS}]:{cluster.login_port} {host_key}", encoding="utf-8")

    return Daemon(
        name="sshd",
        command=[find_program("sshd") or "sshd", "-D", "-e", "-f", f"{folder}/sshd_config"],  # requires its full path
        serves=lambda: listens((LOGIN_ADDRESS, cluster.login_port)),
        port=cluster.login_port,
        before_start=make_keys,
        sessions=lambda listener: {child for child in descendants(listener) if command_name(child) == "sshd"},
        work=lambda: processes_with(SLURM_LAB_LOGIN=str(cluster.folder)),
    )
