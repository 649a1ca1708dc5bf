"""Single files: written whole or not at all, read with their provenance or an error that says what is wrong."""

import errno
import fcntl
import glob
import os
import re
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Protocol, TypeVar

import polars as pl
from pydantic import ValidationError

from gradsim.errors import TableError
from gradsim.tables.blocks import blocks_of
from gradsim.tables.digest import digest_table
from gradsim.tables.provenance import Provenance

METADATA_KEY = "gradsim"

# What polars raises for a file that is not whole; some damage makes its reader panic.
_UNREADABLE = (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError)


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A hidden file beside `path` that takes its place when the block ends well, and vanishes when it does not.

    Of a process that was killed it stays, until somebody writes to the same path.

    Raises:
        TableError: the block met a folder that cannot be written, or a full disk.
    """
    with writing_to(path), partial_file(path) as partial:
        yield partial


@contextmanager
def partial_file(path: Path) -> Iterator[Path]:
    """The same for a block that does more than to write: its own errors are left as they are."""
    partial = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.partial")
    try:
        with writing_to(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            _remove_abandoned(path)
            held = partial.open("xb")
        with held:
            _lock(held)
            yield partial
            with writing_to(path):
                os.fsync(held.fileno())
                partial.replace(path)
    finally:
        with suppress(OSError):
            partial.unlink()


class Writer(Protocol):
    """What writes a file in pieces."""

    def finish(self) -> None:
        """Write what is only known at the end."""

    def close(self) -> None:
        """Let go of the file."""


AnyWriter = TypeVar("AnyWriter", bound=Writer)


@contextmanager
def written_in_pieces(path: Path, make: Callable[[Path], AnyWriter]) -> Iterator[AnyWriter]:
    """A writer of a hidden file that takes the place of `path` when the block ends well.

    Args:
        path: the file.
        make: gives the writer of the hidden one.

    Raises:
        TableError: the folder cannot be written, or the disk is full.
    """
    with partial_file(path) as partial:
        with writing_to(path):
            writer = make(partial)
        try:
            yield writer
            with writing_to(path):
                writer.finish()
        finally:
            with writing_to(path):
                writer.close()


@contextmanager
def writing_to(path: Path) -> Iterator[None]:
    """Says of the operating system's errors in the block that the folder of `path` cannot be written, and why."""
    try:
        yield
    except (OSError, pl.exceptions.ComputeError) as error:
        number = _system_error(error)
        if number is None:
            raise
        raise _unwritable(path, number) from error


def _lock(file: IO[bytes]) -> None:
    """Say that somebody is at work on a file, where the file system can say so."""
    with suppress(OSError):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _remove_abandoned(path: Path) -> None:
    """Remove hidden files of this path that nobody is at work on any more."""
    for partial in path.parent.glob(f".{glob.escape(path.name)}.*.partial"):
        with suppress(OSError), partial.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            partial.unlink()


def _system_error(error: Exception) -> int | None:
    """The number of the operating system's error behind an exception; polars only says it in its text."""
    said = re.search(r"os error (\d+)", str(error))
    return getattr(error, "errno", None) or (int(said[1]) if said else None)


def _unwritable(path: Path, number: int) -> TableError:
    full = number in {errno.ENOSPC, errno.EDQUOT}
    mend = (
        "make room or set GRADSIM_DATA to another disk" if full else "set GRADSIM_DATA to a folder that you can write"
    )
    return TableError(f"{path.parent}: cannot be written ({os.strerror(number)}); {mend}")


def data_version(frame: pl.DataFrame, provenance: Provenance) -> str:
    """A digest of the rows and the model's revision: the same data have the same version, whenever written."""
    return shortened(digest_table(frame, digest_salt(provenance)))


def digest_salt(provenance: Provenance) -> str:
    """What bears on the data version beside the rows."""
    return provenance.revision or ""


def shortened(digest: str) -> str:
    """A digest as it is shown and stored: as much as tells versions apart."""
    return digest[:16]


def read_provenance(path: Path) -> Provenance:
    """The provenance in a file's footer; the rows are not read.

    Raises:
        TableError: the file is not there, is not whole, or was not written by gradsim.
    """
    with reading(path):
        try:
            return Provenance.model_validate_json(pl.read_parquet_metadata(path)[METADATA_KEY])
        except (KeyError, ValidationError) as error:
            raise corrupt(path, error) from error


def read_table(path: Path) -> pl.DataFrame:
    """All rows of a file.

    Raises:
        TableError: the file is not there or not whole.
    """
    with reading(path):
        return pl.read_parquet(path, glob=False)


def read_blocks(path: Path) -> Iterator[pl.DataFrame]:
    """All rows of a file in frames of bounded size, at least one.

    Raises:
        TableError: the file is not there or not whole.
    """
    with reading(path):
        yield from blocks_of(scan_table(path))


def scan_table(path: Path) -> pl.LazyFrame:
    """A file's rows, of which only what is asked for is read; to be collected in a block of `reading`."""
    return pl.scan_parquet(path, glob=False)


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Says of errors in the block that the file is not there, or that it cannot be read, and why."""
    try:
        yield
    except FileNotFoundError as error:
        raise TableError(f"{path}: not there; run what makes it first (gradsim run)") from error
    except _UNREADABLE as error:
        raise corrupt(path, error) from error


def corrupt(path: Path, error: BaseException) -> TableError:
    """The error for a file that is there and cannot be read."""
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return TableError(f"{path}: not a readable table ({reason}); delete it and run again")
