"""Merge the files of a table into one table without duplicates, and check that duplicates agree.

A row that is in several files is taken from the first one in order of precedence.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import compress

import numpy as np

from gradsim.analysis.arrays import Floats, Positions
from gradsim.errors import TableError
from gradsim.published.reading import COSINE, Block, Key
from gradsim.tables.combine import TOLERANCE


@dataclass(frozen=True, slots=True)
class Repeats:
    """Rows of a file that an earlier file also has.

    Attributes:
        name: Name of the later file.
        rows: Positions of the rows in the merged table.
        values: Values in the later file, (rows, columns).
    """

    name: str
    rows: Positions
    values: Floats


@dataclass(frozen=True, slots=True)
class Merged:
    """Table merged from all its files.

    Attributes:
        names: File names in order of precedence.
        keys: Key of each row, in order of first appearance.
        columns: Layers, or `COSINE`.
        values: Values, (rows, columns).
        origin: Position in `names` of the file that each row was taken from.
        repeats: Values of the same rows in other files.
    """

    names: tuple[str, ...]
    keys: tuple[Key, ...]
    columns: tuple[str, ...]
    values: Floats
    origin: Positions
    repeats: tuple[Repeats, ...]

    @property
    def all_names(self) -> str:
        """Name of the first file and number of other files, for messages."""
        return self.names[0] if len(self.names) == 1 else f"{self.names[0]} (and {len(self.names) - 1} more files)"

    def file_of(self, row: int) -> str:
        """Return the name of the file that a row was taken from."""
        return self.names[int(self.origin[row])]

    def place_of(self, row: int, column: int) -> str:
        """Return the samples and layer of a value, for messages."""
        key = self.keys[row]
        samples = "sample {!r}".format(*key) if len(key) == 1 else "query {!r}, original {!r}".format(*key)
        return samples if self.columns == COSINE else f"{samples}, layer {self.columns[column]!r}"

    def values_of(self, keys: Sequence[Key]) -> Floats:
        """Return the values of the rows with these keys, (keys, columns)."""
        row_of = {key: row for row, key in enumerate(self.keys)}
        return self.values[[row_of[key] for key in keys]]


def merge(blocks: Sequence[Block]) -> Merged:
    """Merge the contents of one or more files, in order of precedence."""
    row_of: dict[Key, int] = {}
    values, origin, repeats = [], [], []
    for position, block in enumerate(blocks):
        rows = np.array([row_of.get(key, -1) for key in block.keys])
        new = rows < 0
        for key in compress(block.keys, new):
            row_of[key] = len(row_of)
        values.append(block.values[new])
        origin.append(np.full(new.sum(), position))
        if not new.all():
            repeats.append(Repeats(block.name, rows[~new], block.values[~new]))
    return Merged(
        names=tuple(block.name for block in blocks),
        keys=tuple(row_of),
        columns=blocks[0].columns,
        values=np.concatenate(values),
        origin=np.concatenate(origin),
        repeats=tuple(repeats),
    )


def agreement(merged: Merged, scale: Floats, kind: str, unit: str) -> str | None:
    """Check that repeated values agree, and describe them in a sentence without its full stop.

    Args:
        merged: Table to check.
        scale: Scale of each value, (rows, columns).
        kind: Plural noun for the values.
        unit: Suffix that names the scale, such as ` of their value`; empty for absolute differences.

    Returns:
        The sentence; None if no row is in more than one file.

    Raises:
        TableError: A repeated value differs from the kept one by more than `TOLERANCE` times its scale (rule 5).
    """
    if not merged.repeats:
        return None
    differences = [
        relative(repeats.values - merged.values[repeats.rows], scale[repeats.rows]) for repeats in merged.repeats
    ]
    number = sum(difference.size for difference in differences)
    largest = [float(difference.max()) for difference in differences]
    if max(largest) > TOLERANCE:
        worst = int(np.argmax(largest))
        repeats = merged.repeats[worst]
        at, column = divmod(int(differences[worst].argmax()), differences[worst].shape[1])
        row = int(repeats.rows[at])
        differing = sum(int((difference > TOLERANCE).sum()) for difference in differences)
        raise TableError(
            f"{merged.file_of(row)} and {repeats.name} disagree: {merged.place_of(row, column)} is "
            f"{merged.values[row, column]} in the former and {repeats.values[at, column]} in the latter; {differing:,} "
            f"of {number:,} repeated {kind} differ by more than {TOLERANCE:g}{unit}, this one the most. The files are "
            "from different runs: remove the wrong ones"
        )
    return (
        f"{number:,} {kind} are in more than one file and differ by at most {max(largest):.1e}{unit}; the whole file "
        "takes precedence, then the parts in order"
    )


def relative(differences: Floats, scale: Floats) -> Floats:
    """Return absolute differences divided by a scale; a difference of zero is zero even if the scale is zero."""
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        return np.where(differences == 0, 0.0, np.abs(differences) / scale)
