"""Texts that are not there, or not to their end."""

import unicodedata

from gradsim.queries.quality.rewrite import Rewrite

# Of texts that their model ended itself, as servers call it.
_ENDED = frozenset({"stop", "stop_sequence", "end_turn", "eos", "eos_token"})

_INVISIBLE = frozenset({"Zs", "Zl", "Zp", "Cc", "Cf"})


def is_empty(rewrite: Rewrite) -> bool:
    """Whether the text shows nothing: only blanks, control characters and marks of no width, if anything."""
    return all(unicodedata.category(character) in _INVISIBLE for character in rewrite.text)


def is_truncated(rewrite: Rewrite) -> bool:
    """Whether whoever wrote the text was stopped, by a limit or a filter."""
    return rewrite.finish_reason is not None and rewrite.finish_reason not in _ENDED
