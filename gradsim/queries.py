"""Ways of making queries from originals: a new way is one class with a `make`.

A query bears the id of the original it was made from. Ways that need an API or a model live in `gradsim.paraphrase`
and `gradsim.generate`.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import polars as pl

from gradsim import samples
from gradsim.errors import SampleError

_BLANKS = re.compile(r"[^\S\r\n]*")
_BLANKS_AND_WORD = re.compile(r"[^\S\r\n]*(?P<word>\S+)")


class QueryMaker(Protocol):
    """One way of making queries."""

    def make(self, originals: pl.DataFrame, ids: Sequence[str] | None = None) -> pl.DataFrame:
        """The queries of the originals `ids` (None: of all), in the originals' order.

        Args:
            originals: every original of the study, as samples.
            ids: those whose queries are asked for, such as a partition's.
        """
        ...


@dataclass(frozen=True)
class WordDropout:
    """Drops every n-th word of prompt and answer: a robustness control that needs no model.

    Attributes:
        every: which word is dropped, at least 2; a text of fewer words stays as it is.
    """

    every: int = 7

    def __post_init__(self) -> None:
        if self.every < 2:
            raise ValueError("every must be at least 2, or no word is left")

    def make(self, originals: pl.DataFrame, ids: Sequence[str] | None = None) -> pl.DataFrame:
        """See `QueryMaker.make`."""
        rows = [
            (
                identifier,
                [
                    {"role": message["role"], "content": drop_words(message["content"], self.every)}
                    for message in messages
                ],
            )
            for identifier, messages in select(originals, ids).iter_rows()
        ]
        return pl.DataFrame(rows, schema=samples.SAMPLES_SCHEMA, orient="row")


@dataclass(frozen=True)
class QueryFile:
    """Queries that someone else made: a JSONL or Parquet file with one for every original.

    Attributes:
        path: the file; its order does not matter.
        ignore_others: leave out queries of unknown originals instead of refusing them: for a trial of the first few
            originals.
    """

    path: Path
    ignore_others: bool = False

    def make(self, originals: pl.DataFrame, ids: Sequence[str] | None = None) -> pl.DataFrame:
        """See `QueryMaker.make`.

        Raises:
            SampleError: a query without an original, an original without a query, or a sample that no study can use.
        """
        queries = samples.validate(samples.load_file(self.path), None, str(self.path))
        unknown = queries.join(originals, on="id", how="anti", maintain_order="left")
        if not (self.ignore_others or unknown.is_empty()):
            raise SampleError(
                f"{self.path}: query {unknown['id'][0]!r} has no original; "
                "remove it or give it the id of the original it was made from"
            )
        missing = originals.join(queries, on="id", how="anti", maintain_order="left")
        if not missing.is_empty():
            raise SampleError(f"{self.path}: original {missing['id'][0]!r} has no query; add one of that id")
        wanted = select(originals, ids).select("id")
        return wanted.join(queries, on="id", how="left", maintain_order="left")


def select(originals: pl.DataFrame, ids: Sequence[str] | None) -> pl.DataFrame:
    """The originals `ids`, or all where that is None; in the originals' order."""
    chosen = originals if ids is None else originals.filter(pl.col("id").is_in(list(ids)))
    return chosen.select("id", "messages")


def drop_words(text: str, every: int) -> str:
    """Drops every n-th word (a run of non-blank characters); line breaks and indentation stay.

    A dropped word takes the blanks before it along, or those after it where it begins its line.
    """
    kept: list[str] = []
    done = 0
    for match in list(_BLANKS_AND_WORD.finditer(text))[every - 1 :: every]:
        start, end = match.span()
        if text[start - 1 : start] in ("", "\r", "\n"):  # begins its line
            start, end = match.start("word"), _end_of_blanks(text, end)
        kept.append(text[done:start])
        done = end
    return "".join(kept) + text[done:]


def _end_of_blanks(text: str, start: int) -> int:
    match = _BLANKS.match(text, start)
    return match.end() if match else start
