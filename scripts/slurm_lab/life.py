"""Starting and stopping of a lab or of single daemons."""

import contextlib
import shutil
import signal
import subprocess

from configuration import Cluster
from daemons import Daemon, choose
from errors import LabError
from ports import is_taken
from processes import end, freeze, is_alive, run, succeeds, wait_until, writes_errors_to

START_LIMIT = 40.0  # seconds
LINES_OF_LOG = 15


def start(cluster: Cluster, only: str | None) -> None:
    """Start the daemons that are not running, and put the nodes into service."""
    cluster.write_files()
    for daemon in choose(cluster, only):
        if process_of(cluster, daemon.name) is None:
            _start(cluster, daemon)
            print(f"slurm-lab: started {daemon.name}")
    _put_nodes_into_service(cluster)


def stop(cluster: Cluster, only: str | None, kill: bool) -> None:
    """Stop the whole lab with its jobs, or a single daemon.

    Args:
        cluster: The lab.
        only: Name of a single daemon to stop; None for the whole lab.
        kill: Whether to kill the daemon and all processes that it started.
    """
    if not only:
        _cancel_jobs(cluster)
    for daemon in reversed(choose(cluster, only)):
        if kill:  # a slurmstepd that sees its job end first reports a failed job, and Slurm does not start it again
            freeze(daemon.work)
        _stop(cluster, daemon, signal.SIGKILL if kill else signal.SIGTERM)
        if kill or not only:
            end(daemon.work, signal.SIGKILL)


def purge(cluster: Cluster) -> None:
    """Delete the folder of a stopped lab."""
    shutil.rmtree(cluster.folder)


def process_of(cluster: Cluster, daemon: str) -> int | None:
    """Return the pid of a running daemon; None if it is not running.

    A pid file may outlive its process, and another process may reuse the pid. The daemon is the one that writes to the
    daemon's log.
    """
    try:
        process = int(cluster.pid_file(daemon).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None
    return process if is_alive(process) and writes_errors_to(process, cluster.log(daemon)) else None


def _start(cluster: Cluster, daemon: Daemon) -> None:
    if daemon.port and is_taken(daemon.port):
        raise LabError(f"{daemon.name} cannot start: port {daemon.port} is in use")
    daemon.before_start()
    with cluster.log(daemon.name).open("a") as log:
        process = subprocess.Popen(
            daemon.command,
            env={**cluster.environment, **daemon.environment},
            cwd=cluster.folder,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    cluster.pid_file(daemon.name).write_text(f"{process.pid}\n", encoding="utf-8")
    in_time = wait_until(lambda: process.poll() is not None or daemon.serves(), START_LIMIT)
    if not in_time or process.poll() is not None:
        raise LabError(f"{daemon.name} did not start. {_last_words(cluster, daemon)}")
    daemon.after_start()


def _last_words(cluster: Cluster, daemon: Daemon) -> str:
    log = cluster.log(daemon.name)
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()[-LINES_OF_LOG:]
    return "\n".join([f"{log} ends with:", *lines])


def _stop(cluster: Cluster, daemon: Daemon, how: signal.Signals) -> None:
    if process := process_of(cluster, daemon.name):
        ending = {process} | daemon.sessions(process)
        end(lambda: ending, how)
        print(f"slurm-lab: stopped {daemon.name}")
    cluster.pid_file(daemon.name).unlink(missing_ok=True)


def _cancel_jobs(cluster: Cluster) -> None:
    with contextlib.suppress(LabError, subprocess.TimeoutExpired):  # the controller may not respond
        if process_of(cluster, "slurmctld") and (jobs := run(["squeue", "-ho", "%A"], cluster.environment).split()):
            run(["scancel", *jobs], cluster.environment)


def _put_nodes_into_service(cluster: Cluster) -> None:
    """Wait until the controller uses all running nodes, which it may have drained or marked as down."""
    if not process_of(cluster, "slurmctld"):
        return
    running = [node for node in cluster.node_ports if process_of(cluster, f"slurmd-{node}")]
    if not wait_until(lambda: all(_is_in_service(cluster, node) for node in running), START_LIMIT):
        raise LabError(f"some nodes did not go into service; see {cluster.log('slurmctld')}")


def _is_in_service(cluster: Cluster, node: str) -> bool:
    state = run(["sinfo", "-h", "-p", "gpu", "-n", node, "-o", "%T"], cluster.environment).strip()
    if "down" in state or "drain" in state:
        succeeds(["scontrol", "update", f"nodename={node}", "state=resume"], cluster.environment)
    return state in {"idle", "mixed", "allocated", "completing"}
