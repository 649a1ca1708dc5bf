"""Programs that tests need and that not every machine has."""

import shutil

import pytest


def require_program(name: str) -> str:
    """Return the path of a program, or skip the test where the program is not installed."""
    path = shutil.which(name)
    if path is None:
        pytest.skip(f"{name} is not installed (apt-get install {name})")
    return path
