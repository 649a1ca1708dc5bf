"""Reading and writing single Parquet files: whole or not at all, always with provenance."""

import errno
import hashlib
import io
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import polars as pl
from pydantic import ValidationError

from gradsim.errors import TableError
from gradsim.tables.provenance import Provenance

METADATA_KEY = "gradsim"


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
    except OSError as error:
        raise _unwritable(path, error) from error
    finally:
        partial.unlink(missing_ok=True)


def _unwritable(path: Path, error: OSError) -> TableError:
    mend = {
        errno.ENOSPC: "make room or set GRADSIM_DATA to another disk",
        errno.EDQUOT: "make room or set GRADSIM_DATA to another disk",
    }.get(error.errno or 0, "set GRADSIM_DATA to a folder that you can write")
    return TableError(f"{path.parent}: cannot be written ({error.strerror or error}); {mend}")


def data_version(frame: pl.DataFrame, provenance: Provenance) -> str:
    """A digest of the rows and the model's revision: the same data have the same version, whenever written."""
    buffer = io.BytesIO()
    frame.rechunk().write_ipc(buffer, compression="uncompressed")
    digest = hashlib.sha256(buffer.getbuffer())
    digest.update((provenance.revision or "").encode())
    return digest.hexdigest()[:16]


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
    except (pl.exceptions.PolarsError, OSError, KeyError, ValidationError) as error:
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
    except (pl.exceptions.PolarsError, OSError) as error:
        raise corrupt(path, error) from error


def corrupt(path: Path, error: Exception) -> TableError:
    """The error for a file that is there and cannot be read."""
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return TableError(f"{path}: not a readable table ({reason}); delete it and run again")
