"""Requests to rewrite texts, and their answers."""

from typing import NamedTuple


class Request(NamedTuple):
    """A text to rewrite, and the sampling seed."""

    text: str
    seed: int


class Answer(NamedTuple):
    """A model's answer to a request.

    Attributes:
        text: text as the model returned it.
        finish_reason: `stop` if the model ended the text; otherwise `length`, `content_filter` or another.
        input_tokens: input tokens as counted by the server; None: unknown.
        output_tokens: output tokens as counted by the server; None: unknown.
    """

    text: str
    finish_reason: str
    input_tokens: int | None = None
    output_tokens: int | None = None
