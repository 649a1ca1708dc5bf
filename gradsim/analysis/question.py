"""The type of an analysis: a question that stored tables answer."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import polars as pl

from gradsim.analysis.schema import Schema

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Tables: TypeAlias = Mapping[str, pl.DataFrame]
"""Name of an input table -> its rows."""

AnswerFunction: TypeAlias = Callable[[Tables, int], pl.DataFrame]
"""Function that computes an answer from its input tables and a seed."""


@dataclass(frozen=True)
class Question:
    """An analysis of a setting: a question that its stored tables answer.

    To add one, write a module with a `Question` and register it as an entry point `NAME = "MODULE:OBJECT"` in the group
    `gradsim.analyses`; see docs/extending.md.

    Attributes:
        description: one-sentence summary of the answer.
        schema: columns of the answer.
        inputs: names of the tables that the answer and its figure require: combined tables of the setting, earlier
            answers, `parameters_per_layer`, `projections`, and tokens.
        answer: function that computes the answer.
        draws: whether the answer depends on the seed.
        figure: draws the answer, given with its inputs by name; None: it is only a table.
    """

    description: str
    schema: Schema
    inputs: tuple[str, ...]
    answer: AnswerFunction
    draws: bool = True
    figure: "Callable[[Tables], Figure] | None" = None
