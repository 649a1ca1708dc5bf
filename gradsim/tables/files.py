"""Reading and writing single Parquet files: whole or not at all, always with provenance."""

import errno
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import polars as pl
from pydantic import ValidationError

from gradsim.errors import TableError
from gradsim.tables.digest import digest
from gradsim.tables.provenance import Provenance

METADATA_KEY = "gradsim"

# What polars raises for a file that is not whole; some damage makes its reader panic.
_UNREADABLE = (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError)


def write_table(frame: pl.DataFrame, path: Path, provenance: Provenance) -> Provenance:
    """Write beside the final path, then rename: a reader sees the old file, the new one, or none.

    Returns:
        The provenance as written, with the data version of these rows.

    Raises:
        TableError: the folder cannot be written, or the disk is full.
    """
    provenance = provenance.model_copy(update={"data_version": data_version(frame, provenance)})
    with atomic_path(path) as partial:
        frame.write_parquet(partial, compression="zstd", metadata={METADATA_KEY: provenance.model_dump_json()})
    return provenance


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A hidden path beside `path` that takes its place when the block ends well, and vanishes when it does not."""
    partial = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield partial
        with partial.open("rb") as written:
            os.fsync(written.fileno())
        partial.replace(path)
    except (OSError, pl.exceptions.ComputeError) as error:
        number = _system_error(error)
        if number is None:
            raise
        raise _unwritable(path, number) from error
    finally:
        with suppress(OSError):
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
    return digest(frame, salt=provenance.revision or "")[:16]


def read_provenance(path: Path) -> Provenance:
    """The provenance in a file's footer; the rows are not read.

    Raises:
        TableError: the file is not there, is not whole, or was not written by gradsim.
    """
    try:
        metadata = pl.read_parquet_metadata(path)
        return Provenance.model_validate_json(metadata[METADATA_KEY])
    except FileNotFoundError as error:
        raise TableError(f"{path}: not there; run what makes it first (gradsim run)") from error
    except (*_UNREADABLE, KeyError, ValidationError) as error:
        raise corrupt(path, error) from error


def read_table(path: Path) -> pl.DataFrame:
    """All rows of a file.

    Raises:
        TableError: the file is not there or not whole.
    """
    try:
        return pl.read_parquet(path)
    except FileNotFoundError as error:
        raise TableError(f"{path}: not there; run what makes it first (gradsim run)") from error
    except _UNREADABLE as error:
        raise corrupt(path, error) from error


def corrupt(path: Path, error: BaseException) -> TableError:
    """The error for a file that is there and cannot be read."""
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return TableError(f"{path}: not a readable table ({reason}); delete it and run again")
