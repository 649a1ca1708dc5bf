"""Writing Parquet files, also such as are larger than memory: rows come in pieces of any size."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import polars as pl
import pyarrow.parquet as pq

from gradsim.tables.digest import BLOCK_ROWS, TableDigest
from gradsim.tables.files import METADATA_KEY, digest_salt, shortened, writing_to, written_in_pieces
from gradsim.tables.provenance import Provenance

# Few enough that readers who look at statistics can skip most of a large table when they look for a query.
ROW_GROUP_ROWS = 1 << 18

# Of zstd: a little smaller than its fastest, and not slower for numbers that are split.
COMPRESSION_LEVEL = 3

Conform = Callable[[pl.DataFrame], pl.DataFrame]

# Arrow's types that Parquet knows.
_COMPATIBLE = pl.CompatLevel.oldest()


def write_table(frame: pl.DataFrame, path: Path, provenance: Provenance) -> Provenance:
    """Write beside the final path, then rename: a reader sees the old file, the new one, or none.

    Returns:
        The provenance as written, with the data version of these rows.

    Raises:
        TableError: the folder cannot be written, or the disk is full.
    """
    with table_writer(path, provenance) as writer:
        writer.add(frame)
    return writer.provenance


def table_writer(
    path: Path, provenance: Provenance, conform: Conform = lambda frame: frame
) -> AbstractContextManager["TableWriter"]:
    """A writer whose file takes its place when the block ends well.

    Args:
        path: the file.
        provenance: as `TableWriter.provenance`.
        conform: makes a table's rows of what is added.

    Raises:
        TableError: the folder cannot be written, or the disk is full.
    """
    return written_in_pieces(path, lambda partial: TableWriter(partial, provenance, conform))


class TableWriter:
    """Writes a file's rows as they are added; what stands in it does not depend on the pieces that they came in.

    Attributes:
        provenance: what is written of it; may be replaced until the end, when it gets the data version.
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
        """Whether anything was added."""
        return bool(self._waiting)

    def add(self, frame: pl.DataFrame) -> None:
        """The next rows, as many as fit memory well. The first frame, of no rows perhaps, says what columns there are.

        Raises:
            TableError: the disk is full.
            ValueError: other columns than the first frame's.
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
        """Write what is left, then the provenance."""
        rest = pl.concat(self._waiting)
        if rest.height or self._parquet is None:
            self._write(rest)
        assert self._parquet is not None
        version = shortened(self._digest.hexdigest())
        self.provenance = self.provenance.model_copy(update={"data_version": version})
        self._parquet.add_key_value_metadata({METADATA_KEY: self.provenance.model_dump_json()})
        self._parquet.close()

    def close(self) -> None:
        """Let go of the file; what was not finished gets no footer."""
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
            )
        self._parquet.write_table(table, row_group_size=ROW_GROUP_ROWS)


def _numbers(schema: pl.Schema) -> list[str] | bool:
    """Columns whose signs and exponents, which are much alike, are stored apart from the digits, which are not."""
    return [name for name, dtype in schema.items() if dtype.is_float()] or False


def _repetitive(schema: pl.Schema) -> list[str]:
    """Columns of which a dictionary of their values is worth while."""
    return [name for name, dtype in schema.items() if isinstance(dtype, pl.Enum | pl.String) or dtype.is_integer()]
