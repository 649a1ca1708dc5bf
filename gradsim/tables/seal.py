"""Seals of stored files: a digest of all bytes, so that a changed file is found before a value is used.

The seal is the last key of the provenance's JSON: 64 hexadecimal digits, the SHA-256 of the file with zeros in their
place. Files of gradsim 0.2 and earlier have none.
"""

import hashlib
import mmap
import time
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

_KEY = b'"seal":"'
_UNSEALED = b"0" * 64

_CHANGED = "its bytes are not those that were written"

_CLOCK_STEP = 100_000_000  # ns; the times of files advance in steps of several milliseconds


def with_seal(provenance: str) -> str:
    """Return a provenance's JSON with room for the seal."""
    return f'{provenance[:-1]},"seal":"{_UNSEALED.decode()}"}}'


def seal(path: Path) -> None:
    """Write the seal into a file that has room for it; leave other files, and those that are sealed."""
    if path.stat().st_size == 0:
        return
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as content:
        place = _place(content)
        if place and content[place] == _UNSEALED:
            content[place] = _digest(content, place)
            content.flush()


def believe(path: Path) -> None:
    """Accept a file without a seal."""


def verify(path: Path, verify_unsealed: Callable[[Path], None] = believe) -> None:
    """Require that a file has the bytes that were sealed; a file that has not changed since is not read again.

    Args:
        path: the file.
        verify_unsealed: verifies a file without a seal.

    Raises:
        OSError: The file cannot be read, or has changed.
    """
    _once_per_change(path, _verify_seal, verify_unsealed)


def verify_digest(path: Path, digest: str) -> None:
    """Require that a file has a SHA-256; a file that has not changed since is not read again.

    Raises:
        OSError: The file cannot be read, or has changed.
    """
    _once_per_change(path, _verify_digest, digest)


def file_digest(path: Path) -> str:
    """Return the hexadecimal SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


Argument = TypeVar("Argument")


def _once_per_change(path: Path, check: Callable[[Path, Argument], None], argument: Argument) -> None:
    status = path.stat()
    if time.time_ns() - status.st_ctime_ns < _CLOCK_STEP:
        check(path, argument)  # another change might leave the same times
        return
    _remembered(path, check, argument, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


@lru_cache(maxsize=1 << 17)
def _remembered(path: Path, check: Callable[[Path, Any], None], argument: Any, *_identity: int) -> None:
    check(path, argument)


def _verify_seal(path: Path, verify_unsealed: Callable[[Path], None]) -> None:
    if path.stat().st_size == 0:
        return
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        place = _place(content)
        if place and content[place] != _digest(content, place):
            raise OSError(_CHANGED)
    if not place:
        verify_unsealed(path)


def _verify_digest(path: Path, digest: str) -> None:
    if file_digest(path) != digest:
        raise OSError(_CHANGED)


def _place(content: mmap.mmap) -> slice | None:
    """Return the place of the seal; None if there is none."""
    start = content.rfind(_KEY) + len(_KEY)
    return slice(start, start + len(_UNSEALED)) if start >= len(_KEY) else None


def _digest(content: mmap.mmap, place: slice) -> bytes:
    total = hashlib.sha256()
    with memoryview(content) as view:
        for part in (view[: place.start], _UNSEALED, view[place.stop :]):
            total.update(part)
    return total.hexdigest().encode()
