"""Content digests of tables, independent of memory layout and chunking.

Equal frames can have different buffers: slices share them, and chunks and the values behind nulls can differ. The
digest therefore covers plain arrays of each column: null mask, lengths of lists and strings, and values.
"""

import hashlib
from collections.abc import Iterator

import polars as pl

# Rows per digest block.
BLOCK_ROWS = 1 << 20


class TableDigest:
    """Incremental digest of a table: that of a single block, or the digest of the block digests.

    Args:
        salt: text that is digested before each block.
    """

    def __init__(self, salt: str = "") -> None:
        self._salt = salt
        self._blocks: list[str] = []

    def add(self, block: pl.DataFrame) -> None:
        """Add the next `BLOCK_ROWS` rows; only the last block may have fewer."""
        self._blocks.append(digest(block, self._salt))

    def hexdigest(self) -> str:
        """Return the hexadecimal digest of all rows; requires at least one block, which may be empty."""
        first, *others = self._blocks
        return hashlib.sha256("".join(self._blocks).encode()).hexdigest() if others else first


def digest_table(frame: pl.DataFrame, salt: str = "") -> str:
    """Return the `TableDigest` of a table in memory."""
    total = TableDigest(salt)
    for start in range(0, max(frame.height, 1), BLOCK_ROWS):
        total.add(frame[start : start + BLOCK_ROWS])
    return total.hexdigest()


def digest(frame: pl.DataFrame, salt: str = "") -> str:
    """Return the hexadecimal SHA-256 of the names, types and values of all columns."""
    total = hashlib.sha256(salt.encode())
    for column in frame:
        for part in _parts(column):
            total.update(f"{len(part)}:".encode())
            total.update(part)
    return total.hexdigest()


def _parts(values: pl.Series) -> Iterator[bytes]:
    """Yield the bytes that identify a column's content: name, type and length first."""
    yield f"{values.name} {values.dtype.base_type()} {len(values)}".encode()
    yield values.is_null().to_numpy().tobytes()
    match values.dtype:
        case pl.List():
            lengths = values.list.len().fill_null(0)
            yield lengths.to_numpy().tobytes()
            yield from _parts(values.filter(lengths > 0).explode(empty_as_null=False))
        case pl.Struct():
            for field in values.struct.fields:
                yield from _parts(values.struct.field(field))
        case pl.Enum(categories=categories):
            yield from _parts(categories)
            yield values.to_physical().fill_null(0).to_numpy().tobytes()
        case pl.String():
            texts = values.fill_null("")
            yield texts.str.len_bytes().to_numpy().tobytes()
            yield texts.str.join().item().encode()
        case _:
            yield values.fill_null(0 if values.dtype.is_numeric() else False).to_numpy().tobytes()
