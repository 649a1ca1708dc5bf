"""A message before and after rewriting."""

from collections.abc import Callable
from typing import NamedTuple

from gradsim.study.settings import LengthBounds


class Rewrite(NamedTuple):
    """A rewritten message and its original.

    Attributes:
        role: "user" or "assistant".
        original: text of the original message.
        text: rewritten text; may be empty.
        answer: the original sample's answer, which an executed prompt resembles.
        finish_reason: "stop", "length", "content_filter", ...; None: unknown.
    """

    role: str
    original: str
    text: str
    answer: str
    finish_reason: str | None


class QualityCheck(NamedTuple):
    """A fault, and how to find it.

    Attributes:
        meaning: of the fault, in a few words that complete "the text is ...".
        is_there: returns whether a rewritten text has the fault.
    """

    meaning: str
    is_there: Callable[[Rewrite, LengthBounds], bool]
