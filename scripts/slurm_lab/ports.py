"""Ranges of free ports for a lab."""

import contextlib
import socket
import zlib
from collections.abc import Iterator
from pathlib import Path

from errors import LabError

PORTS_OF_A_LAB = 40
RANGES = range(20000, 32000, PORTS_OF_A_LAB)  # below the ephemeral ports


def is_taken(port: int) -> bool:
    """Return whether a port is in use on any address."""
    try:
        socket.create_server(("", port)).close()
    except OSError:
        return True
    return False


@contextlib.contextmanager
def free_range(folder: Path, first: int | None) -> Iterator[int]:
    """Yield the first port of a free range: the one that starts at `first`, or any.

    While the block runs, the range's last port is held, which keeps labs that start at the same time out of it.

    Raises:
        LabError: There is no free range.
    """
    for base in [first] if first else _ranges_for(folder):
        if claim := _claim(base):
            with claim:
                yield base
            return
    which = f"{first} to {first + PORTS_OF_A_LAB - 1}" if first else f"{RANGES.start} to {RANGES.stop}"
    raise LabError(f"too many of the ports {which} are in use")


def _claim(base: int) -> socket.socket | None:
    """Return a server on a range's last port if the whole range is free; else None."""
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
    """Return all ranges, in an order that depends on the folder, so that a stopped lab usually finds its range free."""
    first = zlib.crc32(bytes(folder)) % len(RANGES)
    return [*RANGES[first:], *RANGES[:first]]
