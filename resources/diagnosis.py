"""Checks that run in sequence. Each reports what it found, or what is wrong and how to fix it."""

import enum
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from gradsim.errors import GradsimError

Subject = TypeVar("Subject")


class Doubt(GradsimError):  # noqa: N818 - nothing is wrong
    """A warning: something works but is not optimal, or could not be verified."""


class Mark(enum.Enum):
    """Outcome of a check."""

    GOOD = enum.auto()
    DOUBTFUL = enum.auto()
    BAD = enum.auto()
    UNTESTED = enum.auto()


@dataclass(frozen=True)
class Check(Generic[Subject]):
    """A single check.

    Attributes:
        name: One or two words for the terminal.
        look: Function that returns what it found. It raises `Doubt` to warn, or another `GradsimError` to fail.
        needs: Names of the checks that have to pass before this one can run.
    """

    name: str
    look: Callable[[Subject], str]
    needs: tuple[str, ...] = ()


@dataclass(frozen=True)
class Finding:
    """Result of a check.

    Attributes:
        mark: Outcome.
        text: What was found; or the problem and, after a semicolon, the fix.
    """

    mark: Mark
    text: str = ""


def examine(check: Check[Subject], subject: Subject, earlier: Mapping[str, Finding]) -> Finding:
    """Run a check, unless a check that it needs has failed or was skipped."""
    if any(earlier[need].mark in {Mark.BAD, Mark.UNTESTED} for need in check.needs):
        return Finding(Mark.UNTESTED)
    try:
        return Finding(Mark.GOOD, check.look(subject))
    except Doubt as doubt:
        return Finding(Mark.DOUBTFUL, str(doubt))
    except GradsimError as error:
        return Finding(Mark.BAD, str(error))
