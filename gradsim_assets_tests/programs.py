"""Programs that tests need and that not every machine has, and processes that tests end."""

import shutil

import psutil
import pytest


def require_program(name: str) -> str:
    """Return the path of a program, or skip the test where the program is not installed."""
    path = shutil.which(name)
    if path is None:
        pytest.skip(f"{name} is not installed (apt-get install {name})")
    return path


def has_ended(process: int) -> bool:
    """Return whether the process with this id has ended; it stays a zombie where nobody adopts orphans."""
    try:
        return psutil.Process(process).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
