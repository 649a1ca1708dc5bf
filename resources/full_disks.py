"""Full and read-only file systems, recognized behind the errors of other packages."""

import errno
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from gradsim.environment import read_environment
from gradsim.errors import StudyError

_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO}

# Parts of the messages of SQLite, Rust and C++.
_MESSAGES = (
    "database or disk is full",
    "disk I/O error",
    "readonly database",
    "unable to open database file",
    "No space left on device",
    "Read-only file system",
)

# A file system with less room than this counts as full: SQLite needs some for its own files.
_BYTES = 1 << 20


def disk_error(error: BaseException) -> StudyError | None:
    """Return the error that names the full or read-only disk behind an error; None if it has another cause."""
    if not any(_is_of_disk(each) for each in _chain(error)):
        return None
    root = read_environment().data_root
    for folder in (root, Path(os.environ.get("DAGSTER_HOME") or root / ".dagster"), Path(tempfile.gettempdir())):
        existing = next(each for each in (folder, *folder.absolute().parents) if each.exists())
        status = os.statvfs(existing)
        if status.f_flag & os.ST_RDONLY:
            return StudyError(f"{folder} is read-only; make it writable and run again")
        if status.f_bavail * status.f_frsize < _BYTES:
            return StudyError(f"no space left in {folder}; free some and run again")
    return None


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and those behind it."""
    following: BaseException | None = error
    while following is not None:
        yield following
        following = following.__cause__ or following.__context__


def _is_of_disk(error: BaseException) -> bool:
    is_errno = isinstance(error, OSError) and error.errno in _ERRORS
    return is_errno or any(message in str(error) for message in _MESSAGES)
