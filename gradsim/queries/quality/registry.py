"""Quality checks of rewritten texts by the fault that they find; other packages add theirs as entry points."""

from collections.abc import Mapping
from types import MappingProxyType

from gradsim.environment import extensions
from gradsim.queries.quality.execution import is_executed
from gradsim.queries.quality.language import is_in_another_language
from gradsim.queries.quality.refusals import is_refused
from gradsim.queries.quality.rewrite import (
    QualityCheck,
    Rewrite,
    is_empty,
    is_out_of_bounds,
    is_truncated,
    is_unchanged,
)
from gradsim.study.settings import LengthBounds

# Stored exclusion reasons contain these meanings, and asset checks search for them there: do not reword.
_CHECKS: Mapping[str, QualityCheck] = MappingProxyType(
    {
        "empty": QualityCheck("no text came back", lambda rewrite, _: is_empty(rewrite)),
        "truncated": QualityCheck("broken off before its end", lambda rewrite, _: is_truncated(rewrite)),
        "refused": QualityCheck("declined instead of rewritten", lambda rewrite, _: is_refused(rewrite)),
        "executed": QualityCheck(
            "carried out or answered instead of rewritten", lambda rewrite, _: is_executed(rewrite)
        ),
        "unchanged": QualityCheck("the same as before", lambda rewrite, _: is_unchanged(rewrite)),
        "language": QualityCheck("in another language than before", lambda rewrite, _: is_in_another_language(rewrite)),
        "length": QualityCheck("much shorter or much longer than before", is_out_of_bounds),
        **{name: extension.load() for name, extension in extensions("quality_checks").items()},
    }
)

# Faults that apply to empty texts.
_OF_EMPTY_TEXTS = ("empty", "truncated")

DEFAULT_BOUNDS = LengthBounds()

FAULTS: Mapping[str, str] = MappingProxyType({name: check.meaning for name, check in _CHECKS.items()})
"""Short description of each fault by name."""


def find_faults(rewrite: Rewrite, bounds: LengthBounds = DEFAULT_BOUNDS) -> list[str]:
    """Return the names of a rewritten text's faults, in the order of `FAULTS`.

    Args:
        rewrite: the text and its original.
        bounds: allowed length ratios.
    """
    names = _OF_EMPTY_TEXTS if is_empty(rewrite) else tuple(_CHECKS)
    return [name for name in names if _CHECKS[name].is_there(rewrite, bounds)]
