"""Ranges of ports on this machine that a lab can have for itself."""

import contextlib
import socket
import zlib
from collections.abc import Iterator
from pathlib import Path

from errors import LabError

PORTS_OF_A_LAB = 40
RANGES = range(20000, 32000, PORTS_OF_A_LAB)  # below the ports that systems give to clients


def is_taken(port: int) -> bool:
    """Whether someone listens to a port, at any address."""
    try:
        socket.create_server(("", port)).close()
    except OSError:
        return True
    return False


@contextlib.contextmanager
def free_range(folder: Path, first: int | None) -> Iterator[int]:
    """A range that nobody uses: the one that begins with `first`, or any.

    While the caller begins to use it, its last port keeps it from labs that are started at the same time.
    """
    for base in [first] if first else _ranges_for(folder):
        if claim := _claim(base):
            with claim:
                yield base
            return
    which = f"{first} to {first + PORTS_OF_A_LAB - 1}" if first else f"{RANGES.start} to {RANGES.stop}"
    raise LabError(f"of the ports {which}, too many are in use")


def _claim(base: int) -> socket.socket | None:
    """A server at a range's last port, if nobody uses the range."""
    *others, last = range(base, base + PORTS_OF_A_LAB)
    try:
        claim = socket.create_server(("", last))
    except OSError:
        return None
    if any(is_taken(port) for port in others):
        claim.close()
        return None
    return claim


def _ranges_for(folder: Path) -> list[int]:
    """All ranges, from another one for each folder: a lab that is stopped for a while will find its own still free."""
    first = zlib.crc32(bytes(folder)) % len(RANGES)
    return [*RANGES[first:], *RANGES[:first]]
