"""Checks of the folders: the remote base, the jobs' environment, and the data root."""

import shlex

from gradsim.errors import ClusterError
from gradsim.partition_job import code_version
from resources.diagnosis import Doubt
from resources.slurm.check.cluster import Cluster
from resources.slurm.connection import Answer
from resources.slurm.script import PRINT_CODE_VERSION

# An environment with CUDA takes about 6 GB.
LEAST_FREE_GB = 10

HERE, LOGIN, NODE = "from-here", "from-the-login-node", "from-a-node"


def base(cluster: Cluster) -> str:
    """Check that the remote base is writable and has enough free space."""
    folder = cluster.site.base
    quoted = shlex.quote(str(folder))
    test = f"{quoted}/{cluster.name}"
    answer = cluster.ask(f"mkdir -p {quoted} && echo > {test} && rm {test} && df -Pk {quoted}")
    if answer.status:
        raise ClusterError(
            f"{folder} cannot be written ({answer.complaint}); set SLURM_REMOTE_BASE to a folder on the cluster that "
            "you can write to, and that compute nodes share"
        )
    free = int(answer.text.splitlines()[-1].split()[3]) * 1024 / 1e9
    if free < LEAST_FREE_GB:
        raise Doubt(f"{folder}: {free:.1f} GB free; an environment needs about 6 GB, plus room for data")
    return f"{folder}: {free:,.0f} GB free"


def environment(cluster: Cluster) -> str:
    """Check that the jobs' environment has the same version of the code as this machine."""
    answer = cluster.ask_python(PRINT_CODE_VERSION)
    own = bool(cluster.site.settings.environment)
    fix = f"install it there: pip install '.[node]', or unset SLURM_ENVIRONMENT and {_INSTALL}" if own else _INSTALL
    if answer.status:
        there = cluster.site.environment
        raise _trouble(cluster, f"{there} cannot run gradsim ({answer.complaint}); {_module_hint(answer)}{fix}")
    if (found := answer.text.splitlines()[-1]) != code_version():
        raise ClusterError(f"{cluster.site.environment} has gradsim {found}, this machine {code_version()}; {fix}")
    return f"{cluster.site.environment}: gradsim {found}, the same as here"


def torch(cluster: Cluster) -> str:
    """Check that PyTorch can be imported in the jobs' environment."""
    answer = cluster.ask_python("import torch; print(torch.__version__)")
    if answer.status:
        raise _trouble(cluster, f"torch cannot be imported ({answer.complaint}); {_module_hint(answer)}{_INSTALL}")
    return f"{answer.text.splitlines()[-1]} loads on the login node"


_INSTALL = "run: gradsim cluster install"


def _trouble(cluster: Cluster, text: str) -> Exception:
    """Return the error for a broken environment: only a warning with a container, which may not run on login nodes."""
    return Doubt(f"on the login node {text}") if cluster.site.settings.container else ClusterError(text)


def _module_hint(answer: Answer) -> str:
    missing = "module: command not found" in answer.errors
    return "begin SLURM_SETUP with `source /etc/profile`; then " if missing else ""


def shared_data(cluster: Cluster) -> str:
    """Check that the data root here and `SLURM_DATA` on the cluster are the same folder, in both directions."""
    shared = cluster.site.shared_data
    if shared is None:
        return f"not shared (SLURM_DATA is not set): files are copied to {cluster.site.data}"
    here, there = cluster.token_folder, shlex.quote(str(shared / cluster.token_folder.name))
    try:
        here.mkdir(parents=True)
        (here / HERE).write_text(cluster.name, encoding="utf-8")
    except OSError as error:
        raise ClusterError(
            f"{here.parent} cannot be written ({error.strerror}); set GRADSIM_DATA to a folder that you can write to"
        ) from error
    fix = f"SLURM_DATA must be the cluster's path of GRADSIM_DATA ({here.parent})"
    if cluster.ask(f"test -d {shlex.quote(str(shared))}").status:
        raise ClusterError(f"there is no folder {shared} on the cluster; {fix}")
    if not cluster.is_seen(lambda: cluster.ask(f"ls {there} >/dev/null; cat {there}/{HERE}").text == cluster.name):
        raise ClusterError(f"a file written here does not appear in {shared}; {fix}")
    answer = cluster.ask(f"printf %s {cluster.name} > {there}/{LOGIN}")
    if answer.status:
        raise ClusterError(f"{shared} cannot be written on the cluster ({answer.complaint}); ask for write permission")
    if not cluster.is_seen(lambda: holds_token(cluster, LOGIN)):
        raise ClusterError(f"a file written in {shared} cannot be read here; {fix}, for the same user")
    return f"{shared} is {here.parent}: files are visible in both directions"


def holds_token(cluster: Cluster, name: str) -> bool:
    """Return whether a file that was written on the cluster can be read here."""
    try:
        return (cluster.token_folder / name).read_text(encoding="utf-8") == cluster.name
    except OSError:
        return False
