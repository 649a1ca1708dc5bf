"""Unrounded tables for download from the page."""

import base64
import gzip
import json
from collections.abc import Iterator
from dataclasses import dataclass

import polars as pl
from markupsafe import Markup

# Maximum size of a packed table on the page; larger ones are only in the data root.
MOST_BYTES = 1_500_000


@dataclass(frozen=True)
class Download:
    """Download button of a table.

    Attributes:
        file: Name of the file without extension.
        label: Label of the button.
        available: Whether the page contains the table; it omits tables that are too large.
    """

    file: str
    label: str
    available: bool


class Downloads:
    """Collection of the tables on a page, without duplicates."""

    def __init__(self) -> None:
        self._blocks: dict[str, str] = {}

    def __iter__(self) -> Iterator[tuple[str, str]]:
        """Iterate over file names without extension and packed CSV."""
        return ((file, block) for file, block in self._blocks.items() if len(block) <= MOST_BYTES)

    def add(self, file: str, label: str, frame: pl.DataFrame) -> Download:
        """Add a table, unless it is already present, and return its button."""
        if file not in self._blocks:
            self._blocks[file] = packed(csv_of(frame))
        return Download(file, label, len(self._blocks[file]) <= MOST_BYTES)


def csv_of(frame: pl.DataFrame) -> bytes:
    """Return an unrounded frame as CSV; list items are separated by spaces."""
    lists = [name for name, dtype in frame.schema.items() if isinstance(dtype, pl.List)]
    return frame.with_columns(pl.col(lists).list.eval(pl.element().cast(pl.String)).list.join(" ")).write_csv().encode()


def packed(content: bytes) -> str:
    """Return content compressed with gzip and encoded as base64, deterministically."""
    return base64.b64encode(gzip.compress(content, mtime=0)).decode()


def script_json(value: object) -> Markup:
    """Return a value as JSON that is safe inside a `script` element."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return Markup(text.replace("<", "\\u003c"))
