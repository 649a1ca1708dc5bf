"""Hidden working folders, so that results become visible only when complete."""

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from gradsim.errors import StudyError
from gradsim.tables.files import locked_folder

_REPLACED = "replaced"  # folder inside a hidden one for what was replaced


@contextmanager
def hidden_folder(parent: Path, name: str) -> Iterator[Path]:
    """Create a folder `.NAME.TOKEN` for the duration of the block, and remove it at the end.

    Folders of the same name that killed processes left behind are removed first.

    Args:
        parent: Folder to create it in; created if it does not exist.
        name: Purpose of the folder.

    Raises:
        OSError: The folder cannot be created.
        StudyError: The folder, or one left behind, cannot be removed.
    """
    parent.mkdir(parents=True, exist_ok=True)
    for left_behind in sorted(parent.glob(f".{name}.*")):
        with locked_folder(left_behind) as mine:
            if mine:
                _remove(left_behind)
    folder = parent / f".{name}.{os.getpid()}-{secrets.token_hex(4)}"
    folder.mkdir()
    with locked_folder(folder):
        try:
            yield folder
        except BaseException:
            with suppress(StudyError):  # report the first error; the next process to come here reports this one
                _remove(folder)
            raise
        _remove(folder)


def move_out(hidden: Path, *, replace: bool = False) -> None:
    """Move the content of a hidden folder to the folder that contains it: all of it, or nothing on errors.

    Args:
        hidden: Hidden folder.
        replace: Replace what is there, which is then removed with the hidden folder. A link is replaced itself; its
            target is left alone.

    Raises:
        OSError: Something cannot be moved. What was replaced is restored when the hidden folder is removed.
    """
    moved: list[Path] = []
    try:
        for made in sorted(hidden.iterdir()):
            place = hidden.parent / made.name
            if replace and os.path.lexists(place):
                (hidden / _REPLACED).mkdir(exist_ok=True)
                place.rename(hidden / _REPLACED / made.name)
            made.rename(place)
            moved.append(place)
    except OSError:
        for place in moved:
            place.rename(hidden / place.name)
        raise


def _remove(hidden: Path) -> None:
    """Remove a hidden folder, after restoring what was replaced if nothing has taken its place."""
    try:
        for old in (hidden / _REPLACED).glob("*"):
            if not os.path.lexists(place := hidden.parent / old.name):
                old.rename(place)
        shutil.rmtree(hidden)
    except OSError as error:
        raise StudyError(f"{hidden}: cannot be removed ({error.strerror}); remove it manually") from error
