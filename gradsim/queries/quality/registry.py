"""Faults of rewritten texts by name. To add a fault, write a function and register it here."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import NamedTuple

from gradsim.queries.quality.endings import is_empty, is_truncated
from gradsim.queries.quality.execution import is_executed
from gradsim.queries.quality.language import is_in_another_language
from gradsim.queries.quality.lengths import is_out_of_bounds
from gradsim.queries.quality.refusals import is_refused
from gradsim.queries.quality.rewrite import Rewrite
from gradsim.queries.quality.sameness import is_unchanged
from gradsim.study.settings import LengthBounds


class _Fault(NamedTuple):
    meaning: str
    is_there: Callable[[Rewrite, LengthBounds], bool]


# Stored exclusion reasons contain these descriptions, and the checks search for them there: do not reword.
_FAULTS: Mapping[str, _Fault] = MappingProxyType(
    {
        "empty": _Fault("no text came back", lambda rewrite, _: is_empty(rewrite)),
        "truncated": _Fault("broken off before its end", lambda rewrite, _: is_truncated(rewrite)),
        "refused": _Fault("declined instead of rewritten", lambda rewrite, _: is_refused(rewrite)),
        "executed": _Fault("carried out or answered instead of rewritten", lambda rewrite, _: is_executed(rewrite)),
        "unchanged": _Fault("the same as before", lambda rewrite, _: is_unchanged(rewrite)),
        "language": _Fault("in another language than before", lambda rewrite, _: is_in_another_language(rewrite)),
        "length": _Fault("much shorter or much longer than before", is_out_of_bounds),
    }
)

# Faults that apply to empty texts.
_OF_EMPTY_TEXTS = ("empty", "truncated")

DEFAULT_BOUNDS = LengthBounds()

FAULTS: Mapping[str, str] = MappingProxyType({name: fault.meaning for name, fault in _FAULTS.items()})
"""Short description of each fault by name."""


def find_faults(rewrite: Rewrite, bounds: LengthBounds = DEFAULT_BOUNDS) -> list[str]:
    """Return the names of a rewritten text's faults, in the order of `FAULTS`.

    Args:
        rewrite: the text and its original.
        bounds: allowed length ratios.
    """
    names = _OF_EMPTY_TEXTS if is_empty(rewrite) else tuple(_FAULTS)
    return [name for name in names if _FAULTS[name].is_there(rewrite, bounds)]
