"""Every n-th word dropped: a robustness control that needs no model."""

import re
from typing import Literal

import polars as pl
from pydantic import Field

from gradsim.queries.way import MadeQueries, Means, Way, rewritten

_BLANKS = re.compile(r"[^\S\r\n]*")
_BLANKS_AND_WORD = re.compile(r"[^\S\r\n]*(?P<word>\S+)")


class WordDropout(Way):
    """A robustness control: every n-th word of prompt and answer is dropped."""

    method: Literal["word_dropout"] = "word_dropout"
    every: int = Field(7, ge=2, description="which word; a text of fewer words stays as it is")

    def rewrite(self, samples: pl.DataFrame, means: Means) -> MadeQueries:
        """See `Way.rewrite`."""
        dialogues = [
            [{**message, "content": drop_words(message["content"], self.every)} for message in messages]
            for messages in samples["messages"].to_list()
        ]
        return MadeQueries(rewritten(samples, dialogues))


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
