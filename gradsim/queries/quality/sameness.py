"""Texts that came back as they were."""

import unicodedata

from gradsim.queries.quality.plain import folded
from gradsim.queries.quality.rewrite import Rewrite


def is_unchanged(rewrite: Rewrite) -> bool:
    """Whether nothing differs but case, white space, punctuation, and ways of writing the same character."""
    return _essence(rewrite.text) == _essence(rewrite.original)


def _essence(text: str) -> str:
    """A text without what `is_unchanged` does not look at; signs such as + and < are not punctuation."""
    return "".join(character for character in folded(text) if unicodedata.category(character)[0] not in "PZC")
