"""Which code computes: a version's number does not tell two checkouts apart, its sources do."""

import hashlib
from functools import cache
from pathlib import Path

import gradsim
from gradsim.errors import TableError


@cache
def code_version() -> str:
    """The version with a digest of all sources of the package: `0.1.0+3f2a9c1e`."""
    package = Path(gradsim.__file__).parent
    digest = hashlib.sha256()
    for source in sorted(package.rglob("*.py")):
        digest.update(source.relative_to(package).as_posix().encode() + b"\0" + source.read_bytes() + b"\0")
    return f"{gradsim.__version__}+{digest.hexdigest()[:8]}"


def check_code(sender: str | None) -> None:
    """Refuse what another code has sent.

    Raises:
        TableError: it did.
    """
    if sender != code_version():
        raise TableError(
            f"the job was sent by gradsim {sender}, here is {code_version()}; "
            "install the sender's version here: gradsim cluster install"
        )
