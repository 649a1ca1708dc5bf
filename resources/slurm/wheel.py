"""A wheel of this checkout in its current state, for an environment on another machine."""

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path

import gradsim
from gradsim.errors import ClusterError

CONSTRAINTS = "constraints.txt"

# Contents of the wheel. The rest of a checkout, such as an old `build` folder, must not get into it.
_PACKAGES, _FILES = ("gradsim", "gradsim_assets", "resources"), ("pyproject.toml", "README.md", "LICENSE")


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
