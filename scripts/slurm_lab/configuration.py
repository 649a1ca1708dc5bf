"""A lab's settings, its paths and ports, and the configuration files of its daemons and clients."""

import os
import socket
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from processes import SEARCH_PATH

LOGIN_ADDRESS = "127.0.0.1"
FOLDERS = ("etc", "log", "run", "controller", "devices", "munge", "ssh", "work")

# cred_expire also sets how long a requeued job waits before it restarts (two minutes by default). SlurmdTimeout is the
# time until a silent node counts as down. The scheduler parameters avoid its default pauses of several seconds. Without
# cgroups, OverMemoryKill enforces memory limits. The binding is explained below.
SLURM_CONF = """\
ClusterName=lab
SlurmctldHost={host}({address})
SlurmctldPort={controller_port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/run/munge.sock,cred_expire=10
{binding}
StateSaveLocation={folder}/controller
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/run/slurmctld.pid
SlurmdPidFile={folder}/run/slurmd-%n.pid
SlurmdParameters=config_overrides
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SlurmdTimeout=10
MessageTimeout=5
KillWait=2
ReturnToService=2
JobRequeue=1
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,sched_min_interval=0,sched_interval=2,bf_interval=2
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
DefMemPerCPU=256
GresTypes=gpu
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=1
JobAcctGatherParams=OverMemoryKill
{accounting}
{nodes}
PartitionName=DEFAULT Nodes=ALL MaxTime=1-00:00:00
PartitionName=low PriorityTier=1
PartitionName=gpu PriorityTier=10 Default=YES
PartitionName=high PriorityTier=100
"""

# Slurm's "password" setting takes the path of munge's socket.
ACCOUNTING = """\
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost={address}
AccountingStoragePort={accounting_port}
AccountingStoragePass={folder}/run/munge.sock
AccountingStorageTRES=gres/gpu
AccountingStorageEnforce=associations,limits,qos
MinJobAge=300"""

# Without accounting, only the controller remembers old jobs; here it forgets them after MinJobAge seconds.
NO_ACCOUNTING = """\
AccountingStorageType=accounting_storage/none
MinJobAge=5"""

# Clients reach the database through its unix socket, where root needs no password.
SLURMDBD_CONF = """\
AuthType=auth/munge
AuthInfo=socket={folder}/run/munge.sock
{binding}
DbdHost=localhost
DbdAddr={address}
DbdPort={accounting_port}
SlurmUser=root
PidFile={folder}/run/slurmdbd.pid
StorageType=accounting_storage/mysql
StorageHost=localhost
StorageUser=root
StorageLoc=slurm
"""

SSHD_CONFIG = """\
ListenAddress {login_address}:{login_port}
PidFile none
HostKey {folder}/ssh/host
AuthorizedKeysFile {folder}/ssh/id.pub
StrictModes no
UsePAM no
PermitRootLogin prohibit-password
PasswordAuthentication no
KbdInteractiveAuthentication no
MaxSessions 100
MaxStartups 100:30:200
# In a nested shell (SHLVL), bash does not read ~/.bashrc, which may be slow, and leave locks if a session is killed.
SetEnv SLURM_CONF={folder}/etc/slurm.conf SLURM_LAB_LOGIN={folder} SHLVL=1
Subsystem sftp internal-sftp
"""

CLIENT_VARIABLES = """\
export SLURM_CONF={folder}/etc/slurm.conf
export SLURM_SSH_HOST={login_address}
export SLURM_SSH_PORT={login_port}
export SLURM_SSH_USER=root
export SLURM_SSH_KEY={folder}/ssh/id
export SLURM_SSH_KNOWN_HOSTS_FILE={folder}/ssh/known_hosts
export SLURM_REMOTE_BASE={folder}/work
export SLURM_PARTITION=gpu
export SLURM_MEM=2G
export SLURM_GPUS_PER_NODE=0
"""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Settings of a lab, fixed for as long as its folder exists."""

    port: int  # the lab's first port
    memory: int = 0  # MB per node; 0 shares most of the machine's memory among the nodes
    nodes: int = 2
    cpus: int = 4
    gpus: int = 1
    accounting: bool = True


class Cluster:
    """Paths, ports and addresses of a lab."""

    def __init__(self, folder: Path, settings: Settings) -> None:
        self.folder = folder
        self.settings = settings
        self.controller_port, self.accounting_port, self.login_port = range(settings.port, settings.port + 3)
        self.node_ports = {f"lab{i}": settings.port + 10 + i for i in range(1, settings.nodes + 1)}
        self.login_address = LOGIN_ADDRESS
        self.host = socket.gethostname()
        # Slurm's daemons listen on all addresses, or on the address of the host name. If that is not a loopback
        # address, munge's key still keeps other machines out.
        loopback = _loopback_address(self.host)
        self.address = loopback or LOGIN_ADDRESS
        self.binding = "CommunicationParameters=NoInAddrAny,NoCtldInAddrAny" if loopback else ""
        self.environment = {
            **os.environ,
            "PATH": SEARCH_PATH,
            "SLURM_CONF": str(folder / "etc/slurm.conf"),
            "MYSQL_UNIX_PORT": str(folder / "run/mariadbd.sock"),  # where slurmdbd's client library looks
        }

    def log(self, daemon: str) -> Path:
        """Return the path of a daemon's log."""
        return self.folder / f"log/{daemon}.log"

    def pid_file(self, daemon: str) -> Path:
        """Return the path of a daemon's pid file."""
        return self.folder / f"run/{daemon}.pid"

    def write_files(self) -> None:
        """Create the folders, and write all configuration files."""
        for name in FOLDERS:
            (self.folder / name).mkdir(exist_ok=True)
        (self.folder / "munge").chmod(0o700)
        values = vars(self)
        accounting = ACCOUNTING.format(**values) if self.settings.accounting else NO_ACCOUNTING
        nodes = "\n".join(self._nodes())
        self._write("etc/slurm.conf", SLURM_CONF.format(**values, accounting=accounting, nodes=nodes))
        self._write("etc/gres.conf", "".join(self._gpus()))
        self._write("etc/slurmdbd.conf", SLURMDBD_CONF.format(**values))
        self._write("ssh/sshd_config", SSHD_CONFIG.format(**values))
        self._write("env.sh", CLIENT_VARIABLES.format(**values))

    def _write(self, name: str, content: str) -> None:
        path = self.folder / name
        path.touch(mode=0o600)  # slurmdbd requires that only its user can read its file
        path.write_text(content, encoding="utf-8")

    def _nodes(self) -> Iterator[str]:
        cpus, gpus = self.settings.cpus, self.settings.gpus
        memory = self.settings.memory or _most_memory() // self.settings.nodes
        resources = f"CPUs={cpus} RealMemory={memory}" + f" Gres=gpu:fake:{gpus}" * bool(gpus)
        for name, port in self.node_ports.items():
            yield f"NodeName={name} NodeHostname={self.host} NodeAddr={self.address} Port={port} {resources}"

    def _gpus(self) -> Iterator[str]:
        for gpu in range(self.settings.gpus):
            device = self._device(gpu)
            for node in self.node_ports:
                yield f"NodeName={node} Name=gpu Type=fake File={device} Flags=nvidia_gpu_env\n"

    def _device(self, gpu: int) -> Path:
        """Create a fake GPU, a copy of /dev/null because Slurm requires a character device, and return its path."""
        path = self.folder / f"devices/gpu{gpu}"
        if not path.exists():
            os.mknod(path, 0o666 | stat.S_IFCHR, Path("/dev/null").stat().st_rdev)
        return path


def _most_memory() -> int:
    return int(0.9 * os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")) // 2**20


def _loopback_address(host: str) -> str | None:
    """Return the address of a host name if it is a loopback address; else None."""
    try:
        address = socket.gethostbyname(host)
    except OSError:
        return None
    return address if address.startswith("127.") else None
