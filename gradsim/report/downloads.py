"""The unrounded tables that a reader can take from the page."""

from collections.abc import Iterator
from dataclasses import dataclass

import polars as pl

from gradsim.report.blocks import packed

# A table that is larger when packed stays in the data root alone.
MOST_BYTES = 1_500_000


@dataclass(frozen=True)
class Download:
    """A button that gives a table.

    Attributes:
        file: name of the file, without ending.
        label: of the button.
        available: whether the page carries the table; it leaves out what is too large.
    """

    file: str
    label: str
    available: bool


class Downloads:
    """The tables that a page carries, each once."""

    def __init__(self) -> None:
        self._blocks: dict[str, str] = {}

    def __iter__(self) -> Iterator[tuple[str, str]]:
        """Name of the file without ending, and its packed CSV."""
        return ((file, block) for file, block in self._blocks.items() if len(block) <= MOST_BYTES)

    def add(self, file: str, label: str, frame: pl.DataFrame) -> Download:
        """Takes a table along, unless it is there.

        Args:
            file: its name, without ending.
            label: what the button says.
            frame: its rows.
        """
        if file not in self._blocks:
            self._blocks[file] = packed(csv_of(frame))
        return Download(file, label, len(self._blocks[file]) <= MOST_BYTES)


def csv_of(frame: pl.DataFrame) -> bytes:
    """All rows and columns, unrounded; lists as their items with spaces between them."""
    lists = [name for name, dtype in frame.schema.items() if isinstance(dtype, pl.List)]
    return frame.with_columns(pl.col(lists).list.eval(pl.element().cast(pl.String)).list.join(" ")).write_csv().encode()
