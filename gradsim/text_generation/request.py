"""A request to rewrite a text, and the model's answer."""

from typing import NamedTuple


class Request(NamedTuple):
    """A text to rewrite, and the sampling seed."""

    text: str
    seed: int


class Answer(NamedTuple):
    """What a model returned for a request.

    Attributes:
        text: unchanged.
        finish_reason: `stop` if the model ended the text itself; otherwise `length`, `content_filter` or another.
        input_tokens: as the server counted them; None: unknown.
        output_tokens: as the server counted them; None: unknown.
    """

    text: str
    finish_reason: str
    input_tokens: int | None = None
    output_tokens: int | None = None
