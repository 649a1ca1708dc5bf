"""Incremental writing of Parquet files, which may be larger than memory."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import polars as pl
import pyarrow.parquet as pq

from gradsim.tables.digest import BLOCK_ROWS, TableDigest
from gradsim.tables.files import METADATA_KEY, digest_salt, shortened, writing_to, written_in_pieces
from gradsim.tables.provenance import Provenance
from gradsim.tables.seal import with_seal

# Small enough for readers to skip most of a large table by row-group statistics when they select a query.
ROW_GROUP_ROWS = 1 << 18

# zstd level: slightly smaller files than level 1, at the same speed for byte-stream-split numbers.
COMPRESSION_LEVEL = 3

Conform = Callable[[pl.DataFrame], pl.DataFrame]

# Arrow types that Parquet supports.
_COMPATIBLE = pl.CompatLevel.oldest()


def write_table(frame: pl.DataFrame, path: Path, provenance: Provenance) -> Provenance:
    """Write a table atomically: readers see the old file or the new one.

    Returns:
        The provenance as written, with the data version of these rows.

    Raises:
        TableError: the folder is not writable, or the disk is full.
    """
    with table_writer(path, provenance) as writer:
        writer.add(frame)
    return writer.provenance


def table_writer(
    path: Path, provenance: Provenance, conform: Conform = lambda frame: frame
) -> AbstractContextManager["TableWriter"]:
    """Return a context manager that yields a writer and replaces `path` on success.

    Args:
        path: the file.
        provenance: see `TableWriter.provenance`.
        conform: converts added frames to the table's schema.

    Raises:
        TableError: the folder is not writable, or the disk is full.
    """
    return written_in_pieces(path, lambda partial: TableWriter(partial, provenance, conform))


class TableWriter:
    """Incremental Parquet writer; the file's content does not depend on how rows are divided into frames.

    Attributes:
        provenance: provenance to write; may be replaced until `finish`, which adds the data version.
    """

    def __init__(self, path: Path, provenance: Provenance, conform: Conform) -> None:
        self.provenance = provenance
        self._path = path
        self._conform = conform
        self._parquet: pq.ParquetWriter | None = None
        self._digest = TableDigest(digest_salt(provenance))
        self._waiting: list[pl.DataFrame] = []

    @property
    def has_columns(self) -> bool:
        """Whether a frame, possibly empty, was added."""
        return bool(self._waiting)

    def add(self, frame: pl.DataFrame) -> None:
        """Add the next rows; the first frame, possibly empty, determines the schema.

        Raises:
            TableError: the disk is full.
            ValueError: the schema differs from that of the first frame.
        """
        frame = self._conform(frame)
        if self._waiting and frame.schema != self._waiting[0].schema:
            raise ValueError(f"rows of {frame.schema} after rows of {self._waiting[0].schema}")
        self._waiting.append(frame)
        if sum(waiting.height for waiting in self._waiting) < BLOCK_ROWS:
            return
        rows = pl.concat(self._waiting)
        whole = rows.height - rows.height % BLOCK_ROWS
        with writing_to(self._path):
            for start in range(0, whole, BLOCK_ROWS):
                self._write(rows[start : start + BLOCK_ROWS])
        self._waiting = [rows[whole:]]

    def finish(self) -> None:
        """Write the remaining rows, then the provenance."""
        rest = pl.concat(self._waiting)
        if rest.height or self._parquet is None:
            self._write(rest)
        assert self._parquet is not None
        version = shortened(self._digest.hexdigest())
        self.provenance = self.provenance.model_copy(update={"data_version": version})
        self._parquet.add_key_value_metadata({METADATA_KEY: with_seal(self.provenance.model_dump_json())})
        self._parquet.close()

    def close(self) -> None:
        """Close the file; an unfinished file gets no footer."""
        if self._parquet is not None:
            self._parquet.is_open = False
            self._parquet.close()

    def _write(self, block: pl.DataFrame) -> None:
        self._digest.add(block)
        table = block.to_arrow(compat_level=_COMPATIBLE)
        if self._parquet is None:
            self._parquet = pq.ParquetWriter(
                self._path,
                table.schema,
                compression="zstd",
                compression_level=COMPRESSION_LEVEL,
                use_dictionary=_repetitive(block.schema),
                use_byte_stream_split=_numbers(block.schema),
                write_page_checksum=True,  # for readers other than gradsim
            )
        self._parquet.write_table(table, row_group_size=ROW_GROUP_ROWS)


def _numbers(schema: pl.Schema) -> list[str] | bool:
    """Return the columns to byte-stream split: exponents compress well, mantissas do not."""
    return [name for name, dtype in schema.items() if dtype.is_float()] or False


def _repetitive(schema: pl.Schema) -> list[str]:
    """Return the columns to dictionary-encode."""
    return [name for name, dtype in schema.items() if isinstance(dtype, pl.Enum | pl.String) or dtype.is_integer()]
