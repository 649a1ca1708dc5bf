"""Query methods: functions registered by settings class, with their inputs and results."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import singledispatch
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from gradsim.dataset.samples import SAMPLES_SCHEMA
from gradsim.study import LossOn, TemplateName
from gradsim.study.settings import QueryMethod

if TYPE_CHECKING:
    from gradsim.models import RunningModel

# One entry per message in `seeds`, `finish_reasons` and `faults`.
QUERIES_SCHEMA = pl.Schema(
    {
        **SAMPLES_SCHEMA,
        "seeds": pl.List(pl.Int64()),
        "finish_reasons": pl.List(pl.String()),
        "faults": pl.List(pl.List(pl.String())),
    }
)


@dataclass(frozen=True)
class QueryContext:
    """Inputs of a method besides its settings.

    Attributes:
        name: name of study and setting, for journals.
        seed: seed of the study.
        ids: ids of all originals.
        trial: whether the study uses only the first samples of the dataset.
        journals: folder of the journals.
        base_url: address of an OpenAI-compatible API; None: OpenAI's own.
        model: local model, loaded on first use; None if the method runs none.
        template: chat template of the studied model.
        loss_on: messages that the loss covers.
        force: whether to generate journaled answers again unless they cost money.
        progress: called with the number of finished samples and the total.
        say: receives a line for the user.
    """

    name: str
    seed: int
    ids: Sequence[str]
    journals: Path
    trial: bool = False
    base_url: str | None = None
    model: "RunningModel | None" = None
    template: TemplateName = "tulu"
    loss_on: LossOn = "last_answer"
    force: bool = False
    progress: Callable[[int, int], None] = lambda done, total: None
    say: Callable[[str], None] = lambda line: None


@dataclass(frozen=True)
class MadeQueries:
    """Queries with their provenance.

    Attributes:
        frame: frame of `QUERIES_SCHEMA`, in the order of the input samples.
        excluded: reason by id of each sample without a query.
        measured: tokens, texts and other counts.
        model: name of the model that rewrote the texts; None: no model or not recorded here.
    """

    frame: pl.DataFrame
    excluded: Mapping[str, str] = field(default_factory=dict)
    measured: Mapping[str, Any] = field(default_factory=dict)
    model: str | None = None


@singledispatch
def rewrite(settings: QueryMethod, samples: pl.DataFrame, context: QueryContext) -> MadeQueries:
    """Return the queries of samples, with or without faults; register one function for each settings class."""
    raise NotImplementedError(
        f"no function makes queries by {settings.method!r}: register one with gradsim.queries.rewrite.register"
    )


def query_frame(
    samples: pl.DataFrame, messages: Sequence[Sequence[Mapping[str, str]]], **known: Sequence[Sequence[Any]]
) -> pl.DataFrame:
    """Return queries as a frame of `QUERIES_SCHEMA` without faults.

    Args:
        samples: the input samples, one for each query.
        messages: messages of each query.
        known: `seeds` and `finish_reasons` of each query's messages, where known.
    """
    unknown = [[None] * len(each) for each in messages]
    columns = {"id": samples["id"], "messages": messages, "seeds": unknown, "finish_reasons": unknown, **known}
    return pl.DataFrame({**columns, "faults": [[[] for _ in each] for each in messages]}, schema=QUERIES_SCHEMA)
