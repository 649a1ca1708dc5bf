"""Empty and truncated texts."""

import unicodedata

from gradsim.queries.quality.rewrite import Rewrite

# Finish reasons of texts that the model ended itself, as servers report them.
_ENDED = frozenset({"stop", "stop_sequence", "end_turn", "eos", "eos_token"})

_INVISIBLE = frozenset({"Zs", "Zl", "Zp", "Cc", "Cf"})


def is_empty(rewrite: Rewrite) -> bool:
    """Return whether the text has only spaces, control and zero-width characters, if any."""
    return all(unicodedata.category(character) in _INVISIBLE for character in rewrite.text)


def is_truncated(rewrite: Rewrite) -> bool:
    """Return whether a limit or a filter stopped the generation."""
    return rewrite.finish_reason is not None and rewrite.finish_reason not in _ENDED
