"""What is looked at: one message, before and after it was rewritten."""

from collections.abc import Callable
from typing import NamedTuple

from gradsim.study.settings import LengthBounds


class Rewrite(NamedTuple):
    """A rewritten message beside what it was rewritten from.

    Attributes:
        role: whose message it is: "user" or "assistant".
        original: the original message's text.
        text: the rewritten text; may be empty.
        answer: the original sample's answer, which is what a prompt would read like that was carried out.
        finish_reason: why the writing ended: "stop", "length", "content_filter", ...; None where nothing is known.
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
