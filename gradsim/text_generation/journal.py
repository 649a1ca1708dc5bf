"""Journals: what was paid for, in money or in time, a JSON line each, in a file that is only appended to.

A line is handed to the operating system at once, so that a process that is killed loses none, and written through to
the disk every moment, so that a machine that loses power loses few. A line that was being written then is cut off by
the next who writes, and its answer is paid for again.
"""

import errno
import fcntl
import json
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gradsim.errors import GradsimError

# Lines reach the disk after so many seconds at the latest, all of them together.
SYNC_SECONDS = 0.5

Entry = Mapping[str, Any]

_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP}


class JournalError(GradsimError):
    """A journal that cannot be read or written."""


class Journal:
    """An open journal, which nobody else writes to meanwhile.

    Attributes:
        entries: key -> what was written under it; later lines win.
        unreadable: how many lines say nothing; what they held has to be paid for again.
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
        """Write an entry; it outlives this process from now on.

        Raises:
            JournalError: it cannot be written, as on a full disk, or what was written before did not reach the disk.
        """
        self._refuse_lost()
        line = json.dumps({"key": key, **entry}, ensure_ascii=False, separators=(",", ":")) + "\n"
        before = os.lseek(self._file, 0, os.SEEK_END)
        with _using(self._path):
            try:
                _write_whole(self._file, line.encode())
            except OSError:
                os.ftruncate(self._file, before)
                raise
        self.entries[key] = entry
        self._written.set()

    def start(self) -> None:
        """Have lines written through to the disk from now on."""
        self._syncer.start()

    def close(self) -> None:
        """Write through what is left.

        Raises:
            JournalError: the disk does not take it.
        """
        self._closed.set()
        self._written.set()
        self._syncer.join()
        self._refuse_lost()
        with _using(self._path):
            os.fsync(self._file)

    def _refuse_lost(self) -> None:
        if self._lost is not None:  # an operating system says it once
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
    """A journal, made if need be. While another process has it open, it is waited for.

    Args:
        path: the file.
        say: is told of what is waited for.

    Raises:
        JournalError: the file cannot be read or written.
    """
    with _using(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        with _using(path):
            _lock(file, path, say)
            journal = Journal(path, file)
        if journal.unreadable:
            say(f"{path}: {journal.unreadable} lines cannot be read; what they held is made again")
        journal.start()
        try:
            yield journal
        finally:
            journal.close()
    finally:
        os.close(file)


def read_journal(path: Path) -> dict[str, Entry]:
    """The entries of a journal that somebody may be writing to; none where there is no such file.

    Raises:
        JournalError: it cannot be read.
    """
    try:
        return _parsed(path.read_bytes())[0]
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise JournalError(f"{path}: cannot be read ({error.strerror}); make it readable, and run again") from error


def _repaired(file: int) -> bytes:
    """What a file holds; a last line that is not whole is cut off: whoever wrote it was killed."""
    with os.fdopen(os.dup(file), "rb") as reader:
        reader.seek(0)
        content = reader.read()
    whole = content.rfind(b"\n") + 1
    if whole < len(content):
        os.ftruncate(file, whole)
    return content[:whole]


def _parsed(content: bytes) -> tuple[dict[str, Entry], int]:
    """The entries of whole lines, and how many lines are none."""
    entries: dict[str, Entry] = {}
    unreadable = 0
    for line in content.split(b"\n")[:-1]:
        try:
            entry = json.loads(line)
        except ValueError:
            entry = None
        if isinstance(entry, dict) and isinstance(key := entry.pop("key", None), str):
            entries[key] = entry
        else:
            unreadable += 1
    return entries, unreadable


def _lock(file: int, path: Path, say: Callable[[str], None]) -> None:
    """Have the file alone; on a file system without locks, as others may have it too."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        say(f"waiting for another run that writes to {path}")
        fcntl.flock(file, fcntl.LOCK_EX)
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        say(f"{path}: this file system has no locks; do not make the same queries in two runs at once")


def _write_whole(file: int, content: bytes) -> None:
    while content:
        content = content[os.write(file, content) :]


@contextmanager
def _using(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise JournalError(
            f"{path}: cannot be used ({error.strerror}); make room, or let the data root be writable, and run again"
        ) from error
