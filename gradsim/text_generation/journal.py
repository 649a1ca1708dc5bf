"""Journals: append-only JSON Lines files of answers that cost money or time.

Each line is written to the operating system immediately, so that a killed process loses none, and synced to disk twice
per second, so that a power failure loses few. The next writer truncates an incomplete last line; its answer is lost.
A line ends with a checksum; the answer of a damaged line is requested again.
"""

import errno
import fcntl
import json
import os
import re
import threading
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gradsim.errors import GradsimError

# Seconds between syncs to disk.
SYNC_SECONDS = 0.5

Entry = Mapping[str, Any]

# The end of a line. Lines of gradsim 0.2 have no checksum; they can only be the first ones of a file.
_CHECKSUM = re.compile(rb',"crc32":"([0-9a-f]{8})"}$')
_LIKE_A_CHECKSUM = b',"crc32":"        "}'

_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP}


class JournalError(GradsimError):
    """A journal that cannot be read or written."""


class Journal:
    """An open journal, locked against other writers.

    Attributes:
        entries: entries by key; later lines override earlier ones.
        unreadable: number of unreadable lines, which are ignored.
    """

    def __init__(self, path: Path, file: int) -> None:
        self.entries, self.unreadable = _parsed(_repaired(file))
        self._path = path
        self._file = file
        self._written = threading.Event()
        self._closed = threading.Event()
        self._lost: OSError | None = None
        self._syncer = threading.Thread(target=self._sync_every_moment, name=f"sync {path.name}", daemon=True)

    def append(self, key: str, entry: Entry) -> None:
        """Write an entry that survives this process.

        Raises:
            JournalError: the entry cannot be written, for example to a full disk, or an earlier sync failed.
        """
        self._refuse_lost()
        content = json.dumps({"key": key, **entry}, ensure_ascii=False, separators=(",", ":")).encode()
        before = os.lseek(self._file, 0, os.SEEK_END)
        with _using(self._path):
            try:
                _write_whole(self._file, _with_checksum(content) + b"\n")
            except OSError:
                os.ftruncate(self._file, before)
                raise
        self.entries[key] = entry
        self._written.set()

    def start(self) -> None:
        """Start syncing lines to disk."""
        self._syncer.start()

    def close(self) -> None:
        """Stop syncing after a final sync.

        Raises:
            JournalError: a sync failed.
        """
        self._closed.set()
        self._written.set()
        self._syncer.join()
        self._refuse_lost()
        with _using(self._path):
            os.fsync(self._file)

    def _refuse_lost(self) -> None:
        if self._lost is not None:  # the operating system reports it only once
            with _using(self._path):
                raise self._lost

    def _sync_every_moment(self) -> None:
        while not self._closed.is_set():
            self._written.wait()
            self._written.clear()
            try:
                os.fsync(self._file)
            except OSError as error:
                self._lost = error
                return
            self._closed.wait(SYNC_SECONDS)


@contextmanager
def open_journal(path: Path, say: Callable[[str], None] = lambda line: None) -> Iterator[Journal]:
    """Open a journal, creating it for this user alone if necessary; wait while another process has it open.

    Args:
        path: the file.
        say: receives a line for the user before waiting, or about unreadable lines.

    Raises:
        JournalError: the file cannot be read or written.
    """
    with _using(path):
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        with _using(path):
            _lock(file, path, say)
            journal = Journal(path, file)
        if journal.unreadable:
            say(f"{path}: {journal.unreadable} lines cannot be read; their answers are requested again")
        journal.start()
        try:
            yield journal
        finally:
            journal.close()
    finally:
        os.close(file)


def read_journal(path: Path) -> dict[str, Entry]:
    """Return the entries of a journal without locking it; an empty dict if it does not exist.

    Raises:
        JournalError: the file cannot be read.
    """
    try:
        return _parsed(path.read_bytes())[0]
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise JournalError(f"{path}: cannot be read ({error.strerror}); make it readable and run again") from error


def _repaired(file: int) -> bytes:
    """Return the content of a file after truncating an incomplete last line, left by a killed writer."""
    with os.fdopen(os.dup(file), "rb") as reader:
        reader.seek(0)
        content = reader.read()
    whole = content.rfind(b"\n") + 1
    if whole < len(content):
        os.ftruncate(file, whole)
    return content[:whole]


def _parsed(content: bytes) -> tuple[dict[str, Entry], int]:
    """Return the entries of complete lines, and the number of unreadable lines."""
    entries: dict[str, Entry] = {}
    unreadable, checksums = 0, False
    for line in content.split(b"\n")[:-1]:
        checksums = checksums or _ends_like_a_checksum(line)
        try:
            entry = json.loads(_checked(line) if checksums else line)
        except (ValueError, RecursionError):
            entry = None
        if isinstance(entry, dict) and isinstance(key := entry.pop("key", None), str):
            entries[key] = entry
        else:
            unreadable += 1
    return entries, unreadable


def _with_checksum(content: bytes) -> bytes:
    return content[:-1] + b',"crc32":"%08x"}' % zlib.crc32(content)


def _ends_like_a_checksum(line: bytes) -> bool:
    """Return whether a line ends with a checksum, perhaps a damaged one."""
    end = line[-len(_LIKE_A_CHECKSUM) :]
    return sum(one == other for one, other in zip(end, _LIKE_A_CHECKSUM, strict=False)) > 6


def _checked(line: bytes) -> bytes:
    """Return the content of a line.

    Raises:
        ValueError: it has no checksum, or does not match it.
    """
    if found := _CHECKSUM.search(line):
        content = line[: found.start()] + b"}"
        if zlib.crc32(content) == int(found[1], 16):
            return content
    raise ValueError("the line does not match its checksum")


def _lock(file: int, path: Path, say: Callable[[str], None]) -> None:
    """Lock the file, waiting if necessary; only warn on a file system without locks."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        say(f"waiting for another run that is writing to {path}")
        fcntl.flock(file, fcntl.LOCK_EX)
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        say(f"{path}: the file system does not support locks; do not make the same queries in two runs at once")


def _write_whole(file: int, content: bytes) -> None:
    while content:
        content = content[os.write(file, content) :]


@contextmanager
def _using(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise JournalError(
            f"{path}: cannot be used ({error.strerror}); make room or make the data root writable, and run again"
        ) from error
