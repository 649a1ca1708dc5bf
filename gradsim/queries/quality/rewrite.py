"""A message before and after rewriting, and faults that show in its endings, its length and its sameness."""

import unicodedata
from collections.abc import Callable
from typing import NamedTuple

from gradsim.queries.quality.words import folded
from gradsim.study.settings import LengthBounds

# Finish reasons of texts that the model ended itself, as servers report them.
_ENDED = frozenset({"stop", "stop_sequence", "end_turn", "eos", "eos_token"})

_INVISIBLE = frozenset({"Zs", "Zl", "Zp", "Cc", "Cf"})

# A question of 12 characters has valid paraphrases of 50.
SLACK = 20


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


def is_empty(rewrite: Rewrite) -> bool:
    """Return whether the text has only spaces, control and zero-width characters, if any."""
    return all(unicodedata.category(character) in _INVISIBLE for character in rewrite.text)


def is_truncated(rewrite: Rewrite) -> bool:
    """Return whether a limit or a filter stopped the generation."""
    return rewrite.finish_reason is not None and rewrite.finish_reason not in _ENDED


def relative_length(rewrite: Rewrite) -> float:
    """Return the ratio of the text's characters to the original's, with the slack described in `LengthBounds`."""
    return (len(rewrite.text.strip()) + SLACK) / (len(rewrite.original.strip()) + SLACK)


def is_out_of_bounds(rewrite: Rewrite, bounds: LengthBounds) -> bool:
    """Return whether the text is shorter or longer than the bounds allow."""
    return not bounds.least <= relative_length(rewrite) <= bounds.most


def is_unchanged(rewrite: Rewrite) -> bool:
    """Return whether text and original differ at most in case, white space, punctuation and character encoding."""
    return _essence(rewrite.text) == _essence(rewrite.original)


def _essence(text: str) -> str:
    """Return a folded text without white space and punctuation; symbols such as + and < are kept."""
    return "".join(character for character in folded(text) if unicodedata.category(character)[0] not in "PZC")
