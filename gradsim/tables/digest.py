"""A digest of a table's rows that does not depend on how they lie in memory, or in which pieces they come.

Equal frames need not have equal buffers: slices share theirs, chunks and values under nulls differ. So each column is
taken apart into plain arrays: which values are null, how long lists and texts are, and the values themselves.
"""

import hashlib
from collections.abc import Iterator

import polars as pl

# Rows that are digested together; a table of more is digested block by block.
BLOCK_ROWS = 1 << 20


class TableDigest:
    """The digest of a table that comes in blocks: of one block its own, of several the digest of theirs."""

    def __init__(self, salt: str = "") -> None:
        self._salt = salt
        self._blocks: list[str] = []

    def add(self, block: pl.DataFrame) -> None:
        """The next rows: `BLOCK_ROWS` of them, fewer only in the last block."""
        self._blocks.append(digest(block, self._salt))

    def hexdigest(self) -> str:
        """The digest of all rows, in hexadecimal; there must be a block, also where there is no row."""
        first, *others = self._blocks
        return hashlib.sha256("".join(self._blocks).encode()).hexdigest() if others else first


def digest_table(frame: pl.DataFrame, salt: str = "") -> str:
    """The same of a table that is there as a whole."""
    total = TableDigest(salt)
    for start in range(0, max(frame.height, 1), BLOCK_ROWS):
        total.add(frame[start : start + BLOCK_ROWS])
    return total.hexdigest()


def digest(frame: pl.DataFrame, salt: str = "") -> str:
    """SHA-256 over names, types and values of all columns, in hexadecimal."""
    total = hashlib.sha256(salt.encode())
    for column in frame:
        for part in _parts(column):
            total.update(f"{len(part)}:".encode())
            total.update(part)
    return total.hexdigest()


def _parts(values: pl.Series) -> Iterator[bytes]:
    """What a column holds, its name and type first."""
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
