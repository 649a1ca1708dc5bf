"""Unchanged texts."""

import unicodedata

from gradsim.queries.quality.plain import folded
from gradsim.queries.quality.rewrite import Rewrite


def is_unchanged(rewrite: Rewrite) -> bool:
    """Return whether text and original differ at most in case, white space, punctuation and character encoding."""
    return _essence(rewrite.text) == _essence(rewrite.original)


def _essence(text: str) -> str:
    """Return a folded text without white space and punctuation; symbols such as + and < are kept."""
    return "".join(character for character in folded(text) if unicodedata.category(character)[0] not in "PZC")
