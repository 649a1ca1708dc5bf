"""The command `doctor`: checks of the installation, its settings and its folders, with fixes."""

import importlib.metadata
import os
import re
import shlex
import shutil
import sys
import tempfile
from functools import cached_property
from pathlib import Path

import psutil
from packaging.requirements import Requirement

from gradsim import models
from gradsim.environment import Environment, project_root, read_environment
from gradsim.errors import DeviceError, GradsimError, StudyError
from gradsim.study import Study, load_studies
from gradsim.study.loading import imported_studies
from gradsim.study.settings import Paraphrase
from gradsim.tables import State, Store
from gradsim.text_generation import api as text_api
from gradsim_assets import commands
from gradsim_assets.commands.findings import Findings
from gradsim_assets.home import configured_storage, dagster_home
from gradsim_assets.terminal import console
from resources.diagnosis import Check, Doubt

PYTHONS = ((3, 11), (3, 12))

# Size of the tables of a study as large as the paper's.
LEAST_FREE_GB = 5

# File systems with unreliable locks for SQLite.
NETWORK_FILE_SYSTEMS = re.compile(r"nfs|cifs|smb|lustre|beegfs|gpfs|ceph|gluster|afs|9p|fuse\.sshfs", re.IGNORECASE)

_INSTALL = "install it again: make install, or pip install -c constraints.txt -e '.[platform]'"


class InstallationError(GradsimError):
    """Error raised if the installation is broken."""


class Machine:
    """The machine under examination."""

    @cached_property
    def environment(self) -> Environment:
        """Environment of this machine.

        Raises:
            StudyError: A variable has an invalid value.
        """
        return read_environment()

    @cached_property
    def studies(self) -> tuple[list[Study], dict[str, StudyError]]:
        """All studies of the studies folder and all imported ones, and the errors of those that are not valid.

        Raises:
            StudyError: There is no studies folder.
        """
        return load_studies(self.environment)


def python(_: Machine) -> str:
    """Check that the Python version is supported."""
    version = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info[:2] not in PYTHONS:
        raise InstallationError(f"Python {version}; gradsim needs 3.11 or 3.12: make clean install PYTHON=python3.11")
    return f"{version} in {sys.prefix}"


def packages(_: Machine) -> str:
    """Check that all required packages are installed; warn about versions other than the tested ones."""
    needed = requirements("gradsim", {"platform"})
    versions = {name: _version(name) for name in needed}
    if missing := sorted(name for name, version in versions.items() if version is None):
        raise InstallationError(f"not installed: {', '.join(missing)}; {_INSTALL}")
    wrong = [
        f"{name} {versions[name]} (needs {needed[name].specifier})"
        for name in sorted(needed)
        if not needed[name].specifier.contains(str(versions[name]), prereleases=True)
    ]
    if wrong:
        raise InstallationError(f"wrong version: {', '.join(wrong)}; {_INSTALL}")
    pins = constraints(project_root() / "constraints.txt")
    others = {name: version for name in pins if (version := _version(name)) and version.split("+")[0] != pins[name]}
    if others:
        shown = ", ".join(f"{name} {version} (tested {pins[name]})" for name, version in sorted(others.items())[:3])
        more = f" and {len(others) - 3} more" if len(others) > 3 else ""
        raise Doubt(f"versions differ from constraints.txt: {shown}{more}; to get the tested ones, {_INSTALL}")
    return f"{len(needed)} required" + (f", all {len(pins)} pins of constraints.txt met" if pins else "")


def requirements(distribution: str, extras: set[str]) -> dict[str, Requirement]:
    """Return the requirements of a distribution with these extras, by name; extras that include others are resolved."""
    found: dict[str, Requirement] = {}
    for line in importlib.metadata.requires(distribution) or ():
        requirement = Requirement(line)
        if requirement.marker and not any(requirement.marker.evaluate({"extra": extra}) for extra in ("", *extras)):
            continue
        if requirement.name == distribution:
            if not requirement.extras <= extras:
                return requirements(distribution, extras | requirement.extras)
        else:
            found[requirement.name] = requirement
    return found


def constraints(path: Path) -> dict[str, str]:
    """Return the pinned versions of a constraints file, by name; empty if there is no such file."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    return dict(line.split("==") for line in lines if re.fullmatch(r"[\w.-]+==[\w.+-]+", line))


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def settings(machine: Machine) -> str:
    """Check that the environment and `.env` are valid."""
    environment = machine.environment
    file = project_root() / ".env"
    source = f"the environment and {file}" if file.is_file() else "the environment (there is no .env)"
    return f"{source}; jobs run {'here' if environment.compute == 'local' else 'on a Slurm cluster'}"


def privacy(machine: Machine) -> str:
    """Warn about secrets, paid answers, tracebacks and histories that other accounts can read."""
    root = machine.environment.data_root
    private = (project_root() / ".env", root / ".journals", root / ".errors", dagster_home(machine.environment))
    if exposed := [str(path) for path in private if path.exists() and _is_exposed(path)]:
        raise Doubt(
            f"other accounts can read {', '.join(exposed)}; unless a group shares them: chmod go= {shlex.join(exposed)}"
        )
    return ".env, journals, tracebacks and Dagster's history are yours alone"


def _is_exposed(path: Path) -> bool:
    """Return whether other accounts have rights to a path, and may enter all folders above it."""
    return bool(path.stat().st_mode & 0o077) and all(each.stat().st_mode & 0o011 for each in path.parents)


def studies(machine: Machine) -> str:
    """Check that every study file is valid."""
    valid, faults = machine.studies
    _, of_imported = imported_studies(machine.environment)
    for name, fault in faults.items():
        if name not in of_imported:
            raise fault
    names = [study.name for study in valid if not study.imported]
    if not names:
        raise Doubt(f"no study in {machine.environment.studies_folder}; set GRADSIM_STUDIES, or write one")
    return f"{', '.join(names)} in {machine.environment.studies_folder}"


def api(machine: Machine) -> str:
    """Check that there is an API key if a study needs one; send no request."""
    names = [
        study.name
        for study in machine.studies[0]
        if any(isinstance(method, Paraphrase) for method in study.settings.values())
    ]
    if not names:
        return "no study needs an API"
    host = text_api.host_of(machine.environment.openai_base_url or text_api.OPENAI)
    if not os.environ.get("OPENAI_API_KEY"):
        raise Doubt(f"no key for {host}, which {', '.join(names)} would use; set OPENAI_API_KEY in .env")
    return f"a key for {host}, which {', '.join(names)} would use"


def imported(machine: Machine) -> str:
    """Check that every imported study is valid and has all its tables."""
    studies, faults = imported_studies(machine.environment)
    if faults:
        raise next(iter(faults.values()))
    for study in studies:
        store = Store(machine.environment.data_root, study)
        for key in (node.key for node in store.lineage if node.imported):
            if (state := store.state(key)) is not State.FRESH:
                raise StudyError(f"{store.path(key)}: {state}; {store.remedy(key)}")
    names = ", ".join(study.name for study in studies)
    return f"{names} in {machine.environment.data_root}" if names else "no study was imported"


def data_root(machine: Machine) -> str:
    """Check that the data root is writable and has enough free space."""
    root = machine.environment.data_root
    free = _free_gb(root, "GRADSIM_DATA")
    if free < LEAST_FREE_GB:
        raise Doubt(f"{root}: {free:.1f} GB free; make room, or set GRADSIM_DATA elsewhere")
    kind = _file_system(root)
    return f"{root}: {free:,.0f} GB free" + (f", on {kind}" if NETWORK_FILE_SYSTEMS.search(kind) else "")


def dagster(machine: Machine) -> str:
    """Check that Dagster's instance folder is writable, and warn about SQLite on a network file system."""
    home = dagster_home(machine.environment)
    _free_gb(home, "DAGSTER_HOME")
    kind = _file_system(home)
    if NETWORK_FILE_SYSTEMS.search(kind) and {"postgres", "mysql"}.isdisjoint(configured_storage(home)):
        raise Doubt(
            f"{home} is on a network file system ({kind}), where SQLite may lose locks; set DAGSTER_HOME to a local "
            "folder, or use Postgres (dagster.yaml)"
        )
    return f"instance in {home}" + ("" if (home / "dagster.yaml").exists() else ", made by the first command")


def _free_gb(folder: Path, variable: str) -> float:
    """Return the free gigabytes of a folder that may not exist yet, after a test write.

    Raises:
        InstallationError: The folder is not writable.
    """
    there = next(parent for parent in (folder, *folder.parents) if parent.exists())
    try:
        with tempfile.TemporaryFile(dir=there):
            pass
        return shutil.disk_usage(there).free / 1e9
    except OSError as error:
        raise InstallationError(
            f"{folder} cannot be written ({error.strerror}); set {variable} to a folder that you can write to"
        ) from error


def _file_system(folder: Path) -> str:
    """Return the type of the file system of a folder that may not exist yet; "" if unknown."""
    mounts = {Path(each.mountpoint): each.fstype for each in psutil.disk_partitions(all=True)}
    return next((mounts[parent] for parent in (folder, *folder.parents) if parent in mounts), "")


def device(machine: Machine) -> str:
    """Check that the model's device is available; if jobs run on a cluster, check only that torch can be imported."""
    try:
        import torch  # noqa: PLC0415 - may fail
    except (ImportError, OSError) as error:
        raise InstallationError(f"torch cannot be imported ({str(error).splitlines()[0]}); {_INSTALL}") from error
    if machine.environment.compute == "slurm":
        return f"on the cluster; torch {torch.__version__} here only makes plans"
    try:
        found = models.resolve_device(machine.environment.device)
    except RuntimeError as error:  # torch's error for an unknown device
        raise DeviceError(
            f"MT_DEVICE={machine.environment.device} ({str(error).splitlines()[0]}); correct it"
        ) from error
    if found != "cpu":
        torch.ones(1, device=found)
        return f"{found}: {torch.cuda.get_device_name(found)}, torch {torch.__version__}"
    if shutil.which("nvidia-smi") and machine.environment.device == "auto" and machine.environment.compute == "local":
        raise Doubt(
            f"this machine has a GPU driver, but torch {torch.__version__} sees no GPU and the model runs on the CPU; "
            "install a CUDA build that the driver supports (nvidia-smi shows which), or set MT_DEVICE=cpu"
        )
    return f"cpu: {torch.get_num_threads()} threads, torch {torch.__version__}"


CHECKS = (
    Check("Python", python),
    Check("packages", packages),
    Check("settings", settings),
    Check("privacy", privacy, needs=("settings",)),
    Check("studies", studies, needs=("settings",)),
    Check("API", api, needs=("studies",)),
    Check("imports", imported, needs=("settings",)),
    Check("data root", data_root, needs=("settings",)),
    Check("Dagster", dagster, needs=("settings",)),
    Check("device", device, needs=("settings",)),
)


def examine_installation(*, job: bool, wait: float) -> bool:
    """Check this machine, and the cluster if jobs run there; print the findings, and return whether no check failed."""
    machine, findings = Machine(), Findings()
    findings.examine(CHECKS, machine)
    try:
        has_cluster = machine.environment.compute == "slurm"
    except StudyError:  # already among the findings
        has_cluster = False
    if has_cluster:
        console.print()
        commands.examine_cluster(findings, job=job, wait=wait)
    return not findings.failed
