"""A wheel of this checkout as it is now, for an environment elsewhere."""

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path

import gradsim
from gradsim.errors import ClusterError

CONSTRAINTS = "constraints.txt"

# What a wheel is made of; the rest of a checkout, such as an old `build` folder, must not get into it.
_PACKAGES, _FILES = ("gradsim", "gradsim_assets", "resources"), ("pyproject.toml", "README.md", "LICENSE")


def checkout() -> Path:
    """The checkout that this code runs from.

    Raises:
        ClusterError: it was installed without one.
    """
    folder = Path(gradsim.__file__).resolve().parents[1]
    if not all((folder / name).exists() for name in (*_PACKAGES, *_FILES, CONSTRAINTS)):
        raise ClusterError(
            f"gradsim runs from {folder}, which is no checkout of its sources; run this command from one, or make an "
            "environment on the cluster yourself and set SLURM_ENVIRONMENT"
        )
    return folder


def build_wheel(folder: Path) -> Path:
    """A wheel of this checkout as it is now, in a folder.

    Raises:
        ClusterError: there is no checkout, or it cannot be built.
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
        raise ClusterError(f"a wheel of {checkout()} cannot be built here ({said[0]}); see: pip wheel --no-deps .")
    return wheels[0]


def _build_command(source: Path, folder: Path) -> list[str]:
    """By pip; an environment that uv made has none."""
    if importlib.util.find_spec("pip") or not (uv := shutil.which("uv")):
        return [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder), str(source)]
    return [uv, "build", "--quiet", "--wheel", "--out-dir", str(folder), str(source)]
