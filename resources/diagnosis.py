"""Checks that are made one after the other: each says what it found, or what is wrong and how to mend it."""

import enum
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from gradsim.errors import GradsimError

Subject = TypeVar("Subject")


class Doubt(GradsimError):  # noqa: N818 - nothing is wrong
    """Something that works, though not as well as it could, or that could not be made sure of."""


class Mark(enum.Enum):
    """How a check came out."""

    GOOD = enum.auto()
    DOUBTFUL = enum.auto()
    BAD = enum.auto()
    UNTESTED = enum.auto()


@dataclass(frozen=True)
class Check(Generic[Subject]):
    """One thing to make sure of.

    Attributes:
        name: what, in a word or two.
        look: says what it found; raises `Doubt`, or another `GradsimError` where that does not work.
        needs: names of the checks without which this one cannot be made.
    """

    name: str
    look: Callable[[Subject], str]
    needs: tuple[str, ...] = ()


@dataclass(frozen=True)
class Finding:
    """How a check came out.

    Attributes:
        mark: in short.
        text: what was found, or what is wrong; then, behind a semicolon, how to mend it.
    """

    mark: Mark
    text: str = ""


def examine(check: Check[Subject], subject: Subject, earlier: Mapping[str, Finding]) -> Finding:
    """Make a check, unless one that it needs failed or was not made itself."""
    if any(earlier[need].mark in {Mark.BAD, Mark.UNTESTED} for need in check.needs):
        return Finding(Mark.UNTESTED)
    try:
        return Finding(Mark.GOOD, check.look(subject))
    except Doubt as doubt:
        return Finding(Mark.DOUBTFUL, str(doubt))
    except GradsimError as error:
        return Finding(Mark.BAD, str(error))
