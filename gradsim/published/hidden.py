"""Folders that are filled out of sight, so that what is seen is whole."""

import fcntl
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from gradsim.errors import StudyError

# What gave way to the new, inside of a hidden folder.
_REPLACED = "replaced"


@contextmanager
def hidden_folder(parent: Path, name: str) -> Iterator[Path]:
    """A new folder `.NAME.TOKEN` of a parent, which is made if need be; it is removed in the end.

    Those of the same name that were left behind by processes that were killed are removed first.

    Args:
        parent: where it lies, on the same disk as what is to be seen.
        name: what is made in it.

    Raises:
        OSError: it cannot be made.
        StudyError: it, or one that was left behind, cannot be removed.
    """
    parent.mkdir(parents=True, exist_ok=True)
    for left_behind in sorted(parent.glob(f".{name}.*")):
        with _at_work(left_behind) as mine:
            if mine:
                _remove(left_behind)
    folder = parent / f".{name}.{os.getpid()}-{secrets.token_hex(4)}"
    folder.mkdir()
    with _at_work(folder):
        try:
            yield folder
        except BaseException:
            with suppress(StudyError):  # the first error counts; the next one that comes here says what is left
                _remove(folder)
            raise
        _remove(folder)


def swap_in(hidden: Path, name: str) -> None:
    """Let a folder inside of a hidden one take its place beside that, of what is there, which is removed with it.

    A link that is there is replaced, and what it leads to is left alone.

    Raises:
        OSError: it cannot; what gave way comes back with the end of the hidden folder.
    """
    place, replaced = hidden.parent / name, hidden / _REPLACED
    if os.path.lexists(place):
        replaced.mkdir()
        place.rename(replaced / name)
    (hidden / name).rename(place)


def _give_back(hidden: Path) -> None:
    """What gave way comes back, if nothing has taken its place."""
    for old in (hidden / _REPLACED).glob("*"):
        if not os.path.lexists(place := hidden.parent / old.name):
            old.rename(place)


def _remove(hidden: Path) -> None:
    try:
        _give_back(hidden)
        shutil.rmtree(hidden)
    except OSError as error:
        raise StudyError(f"{hidden}: cannot be removed ({error.strerror}); remove it yourself") from error


@contextmanager
def _at_work(folder: Path) -> Iterator[bool]:
    """Says, for the block, that somebody is at work in a folder; gives whether nobody else is."""
    file = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:  # somebody else is, or the file system cannot say so
            yield False
        else:
            yield True
    finally:
        os.close(file)
