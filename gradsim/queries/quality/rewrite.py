"""A message before and after rewriting."""

from typing import NamedTuple


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
