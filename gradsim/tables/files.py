"""Atomic writing of single files, and reading with errors that name the file and the fix."""

import errno
import fcntl
import glob
import os
import re
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Protocol, TypeVar

import polars as pl
from pydantic import ValidationError

from gradsim.errors import TableError
from gradsim.tables.digest import BLOCK_ROWS, TableDigest, digest_table
from gradsim.tables.provenance import Provenance
from gradsim.tables.seal import seal, verify

METADATA_KEY = "gradsim"

# Raised by polars for damaged files; some damage makes its reader panic.
_UNREADABLE = (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError)


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a hidden file beside `path` that replaces it on success and is deleted on error.

    The file of a killed process remains until the next write to the same path.

    Raises:
        TableError: the folder is not writable, or the disk is full.
    """
    with writing_to(path), partial_file(path) as partial:
        yield partial


@contextmanager
def partial_file(path: Path) -> Iterator[Path]:
    """Yield a hidden file as `atomic_path` does, but pass on errors raised inside the block unchanged."""
    partial = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.partial")
    try:
        with writing_to(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            _remove_abandoned(path)
            held = partial.open("xb")
        with held:
            try_lock(held.fileno())
            yield partial
            with writing_to(path):
                seal(partial)
                os.fsync(held.fileno())
                partial.replace(path)
    finally:
        with suppress(OSError):
            partial.unlink()


class Writer(Protocol):
    """Protocol of incremental file writers."""

    def finish(self) -> None:
        """Write the rest of the file."""

    def close(self) -> None:
        """Close the file."""


AnyWriter = TypeVar("AnyWriter", bound=Writer)


@contextmanager
def written_in_pieces(path: Path, make: Callable[[Path], AnyWriter]) -> Iterator[AnyWriter]:
    """Yield a writer of a hidden file that replaces `path` on success.

    Args:
        path: the file.
        make: creates the writer, given the hidden file.

    Raises:
        TableError: the folder is not writable, or the disk is full.
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
    """Convert operating system errors in the block to a `TableError` about the folder of `path`."""
    try:
        yield
    except (OSError, pl.exceptions.ComputeError) as error:
        number = _system_error(error)
        if number is None:
            raise
        raise _unwritable(path, number) from error


def try_lock(file: int) -> bool:
    """Lock an open file or folder; return false if it is in use, or if the file system does not support locks."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


@contextmanager
def locked_folder(folder: Path) -> Iterator[bool]:
    """Lock a folder, but not one behind a link, during the block; yield whether the lock was acquired.

    Raises:
        OSError: the folder cannot be read, or is a link.
    """
    file = os.open(folder, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        yield try_lock(file)
    finally:
        os.close(file)


def _remove_abandoned(path: Path) -> None:
    """Remove hidden files of this path that no process is writing."""
    for partial in path.parent.glob(f".{glob.escape(path.name)}.*.partial"):
        with suppress(OSError), partial.open("rb") as file:
            if try_lock(file.fileno()):
                partial.unlink()


def _system_error(error: Exception) -> int | None:
    """Return the errno behind an exception, which polars reports only in its message."""
    said = re.search(r"os error (\d+)", str(error))
    return getattr(error, "errno", None) or (int(said[1]) if said else None)


def _unwritable(path: Path, number: int) -> TableError:
    full = number in {errno.ENOSPC, errno.EDQUOT}
    fix = "make room or set GRADSIM_DATA to another disk" if full else "set GRADSIM_DATA to a folder that you can write"
    return TableError(f"{path.parent}: cannot be written ({os.strerror(number)}); {fix}")


def data_version(frame: pl.DataFrame, provenance: Provenance) -> str:
    """Return a digest of the rows and the model revision; equal data have equal versions."""
    return shortened(digest_table(frame, digest_salt(provenance)))


def digest_salt(provenance: Provenance) -> str:
    """Return the part of the data version that is not in the rows: the model revision."""
    return provenance.revision or ""


def shortened(digest: str) -> str:
    """Return the first 16 digits of a digest, which is how versions are stored and shown."""
    return digest[:16]


def read_provenance(path: Path) -> Provenance:
    """Return the provenance from a file's footer, without reading rows.

    Raises:
        TableError: the file is missing, damaged, or not written by gradsim.
    """
    with reading(path):
        verify(path, _verify_rows)
        return _provenance(path)


def _provenance(path: Path) -> Provenance:
    try:
        return Provenance.model_validate_json(pl.read_parquet_metadata(path)[METADATA_KEY], context=path)
    except (KeyError, ValidationError) as error:
        raise corrupt(path, error) from error


def _verify_rows(path: Path) -> None:
    """Require that a file without a seal has the rows of its data version.

    Raises:
        OSError: it has other rows.
    """
    provenance = _provenance(path)
    rows = TableDigest(digest_salt(provenance))
    for block in blocks_of(pl.scan_parquet(path, glob=False)):
        rows.add(block)
    if shortened(rows.hexdigest()) != provenance.data_version:
        raise OSError("its rows are not those that were written")


def read_table(path: Path) -> pl.DataFrame:
    """Return all rows of a file.

    Raises:
        TableError: the file is missing or damaged.
    """
    with reading(path):
        verify(path, _verify_rows)
        return pl.read_parquet(path, glob=False)


def read_blocks(path: Path) -> Iterator[pl.DataFrame]:
    """Yield the rows of a file in frames of bounded size, at least one.

    Raises:
        TableError: the file is missing or damaged.
    """
    with reading(path):
        yield from blocks_of(scan_table(path))


def blocks_of(rows: pl.LazyFrame) -> Iterator[pl.DataFrame]:
    """Yield the rows in frames of at most `BLOCK_ROWS`; an empty table yields one empty frame."""
    height = rows.select(pl.len()).collect().item()
    for start in range(0, max(height, 1), BLOCK_ROWS):
        yield rows.slice(start, BLOCK_ROWS).collect()


def scan_table(path: Path) -> pl.LazyFrame:
    """Return a lazy scan of a file; collect it inside a `reading` block.

    Raises:
        TableError: the file is missing or damaged.
    """
    with reading(path):
        verify(path, _verify_rows)
    return pl.scan_parquet(path, glob=False)


@contextmanager
def reading(path: Path, unreadable: tuple[type[BaseException], ...] = _UNREADABLE) -> Iterator[None]:
    """Convert read errors in the block to a `TableError`: the file is missing or damaged.

    Args:
        path: the file.
        unreadable: errors that a damaged file raises.
    """
    try:
        yield
    except FileNotFoundError as error:
        raise TableError(f"{path}: does not exist; create it with gradsim run") from error
    except unreadable as error:
        raise corrupt(path, error) from error


def corrupt(path: Path, error: BaseException) -> TableError:
    """Return the error for a file that exists but cannot be read."""
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return TableError(f"{path}: not a readable table ({reason}); delete it and run again")
