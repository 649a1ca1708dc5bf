"""Identification of the code: version number and digest of the sources."""

import hashlib
from functools import cache
from pathlib import Path

import gradsim
from gradsim.errors import TableError


@cache
def code_version() -> str:
    """Return the version with a digest of the package's sources: `0.2.0+3f2a9c1e`."""
    package = Path(gradsim.__file__).parent
    digest = hashlib.sha256()
    for source in sorted(package.rglob("*.py")):
        digest.update(source.relative_to(package).as_posix().encode() + b"\0" + source.read_bytes() + b"\0")
    return f"{gradsim.__version__}+{digest.hexdigest()[:8]}"


def check_code(sender: str | None) -> None:
    """Check that a job was sent by the same code.

    Raises:
        TableError: the sender's code differs.
    """
    if sender != code_version():
        raise TableError(
            f"the job was sent by gradsim {sender}, but {code_version()} is installed here; "
            "install the sender's version: gradsim cluster install"
        )
