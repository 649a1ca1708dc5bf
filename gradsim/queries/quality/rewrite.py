"""What is looked at: one message, before and after it was rewritten."""

from typing import NamedTuple


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
