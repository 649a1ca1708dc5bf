"""The files of a table as one table, each fact once.

The value of the first file that has it is kept; the others must agree with it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import compress

import numpy as np
from numpy.typing import NDArray

from gradsim.errors import TableError
from gradsim.published.reading import COSINE, Block, Floats, Key
from gradsim.tables.combine import TOLERANCE

Positions = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Repeats:
    """Rows of a file that an earlier one has.

    Attributes:
        name: of the later file.
        rows: which rows of the merged table they repeat.
        values: what the later file says.
    """

    name: str
    rows: Positions
    values: Floats


@dataclass(frozen=True, slots=True)
class Merged:
    """A table from all its files.

    Attributes:
        names: of the files, in the order in which they count.
        keys: one a row, in order of first appearance.
        columns: the layers, or `COSINE`.
        values: (rows, columns).
        origin: position in `names` of the file that a row was taken from.
        repeats: what else was said of some rows.
    """

    names: tuple[str, ...]
    keys: tuple[Key, ...]
    columns: tuple[str, ...]
    values: Floats
    origin: Positions
    repeats: tuple[Repeats, ...]


def merge(blocks: Sequence[Block]) -> Merged:
    """One table of what some files say, at least one; the first file that has a row counts."""
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


def agreement(merged: Merged, scale: Floats, kind: str, measure: str) -> str | None:
    """What to say of rows that several files have; None where there are none.

    Args:
        merged: the table.
        scale: (rows, columns), what differences are measured by.
        kind: what the table holds, in the plural.
        measure: what the scale is.

    Raises:
        TableError: a repeated value differs by more than rule 5 lets it: `TOLERANCE` of its scale.
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
        differing = sum(int((difference > TOLERANCE).sum()) for difference in differences)
        raise TableError(
            f"{_disagreement(merged, merged.repeats[worst], differences[worst])}; {differing:,} of {number:,} repeated "
            f"{kind} differ by more than {TOLERANCE:g} of {measure}, this one most. Files of different runs were "
            "mixed: remove those that do not count"
        )
    return (
        f"{number:,} {kind} stand in more than one file; they differ by at most {max(largest):.1e} of {measure}, and "
        "the first file's are kept: the whole one's, then those of parts in order"
    )


def _disagreement(merged: Merged, repeats: Repeats, differences: Floats) -> str:
    """Both files' names and values where they differ most."""
    at, column = divmod(int(differences.argmax()), differences.shape[1])
    row = int(repeats.rows[at])
    return (
        f"{file_of(merged, row)} and {repeats.name} disagree: {place_of(merged, row, column)} is "
        f"{merged.values[row, column]} in one and {repeats.values[at, column]} in the other"
    )


def file_of(merged: Merged, row: int) -> str:
    """Name of the file that a row was taken from."""
    return merged.names[int(merged.origin[row])]


def place_of(merged: Merged, row: int, column: int) -> str:
    """What a value is of, for an error's text."""
    key = merged.keys[row]
    samples = "sample {!r}".format(*key) if len(key) == 1 else "query {!r}, original {!r}".format(*key)
    return samples if merged.columns == COSINE else f"{samples}, layer {merged.columns[column]!r}"


def relative(differences: Floats, scale: Floats) -> Floats:
    """Sizes of differences as shares of a scale; one of nothing is none also where the scale is nothing."""
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        return np.where(differences == 0, 0.0, np.abs(differences) / scale)
