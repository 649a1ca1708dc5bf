"""What a way of making queries is: its keys in a study file, and how it makes them."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import polars as pl
from pydantic import model_validator

from gradsim.quality import FAULTS, fault_table
from gradsim.queries.choices import Quality
from gradsim.samples import SAMPLES_SCHEMA
from gradsim.section import Section

if TYPE_CHECKING:
    from gradsim.models import RunningModel
    from gradsim.study import ModelConfiguration

_MESSAGE = {"user": "prompt", "assistant": "answer"}

# A query's messages, and of each message what is known of its making.
QUERIES_SCHEMA = pl.Schema(
    {
        **SAMPLES_SCHEMA,
        "seeds": pl.List(pl.Int64()),
        "finish_reasons": pl.List(pl.String()),
        "faults": pl.List(pl.List(pl.String())),
    }
)


@dataclass(frozen=True)
class Means:
    """What a way may make use of.

    Attributes:
        name: of the study and the setting.
        seed: the study's.
        ids: of all originals.
        trial: whether these are only the first of the dataset's.
        journals: folder of what was paid for, in money or in time, and must not be lost.
        base_url: of an OpenAI-compatible API; None: OpenAI's own.
        model: that runs here, loaded when it is first needed; None where none does.
        force: make again also what is journaled, where that costs no money.
        progress: called with samples done and in all.
        say: a line for whoever watches.
    """

    name: str
    seed: int
    ids: Sequence[str]
    journals: Path
    trial: bool = False
    base_url: str | None = None
    model: "RunningModel | None" = None
    force: bool = False
    progress: Callable[[int, int], None] = lambda done, total: None
    say: Callable[[str], None] = lambda line: None


@dataclass(frozen=True)
class MadeQueries:
    """Queries, and how they came to be.

    Attributes:
        frame: of `QUERIES_SCHEMA`, in the order of what they were made from.
        excluded: id of a sample that got no query -> why.
        measured: what it cost.
        model: that wrote them; None where none did.
    """

    frame: pl.DataFrame
    excluded: Mapping[str, str] = field(default_factory=dict)
    measured: Mapping[str, Any] = field(default_factory=dict)
    model: str | None = None


class Way(Section, ABC):
    """A way of making queries; a setting of a study is one with its keys filled in.

    A new way is one class: `method` names it in study files, `make` makes the queries, and the class variables say what
    it needs. It joins the others by a line in `gradsim.queries.Setting`.

    Attributes:
        kinds: labels in the web UI.
        runs_model: whether a model does it, in a partition job, where the GPU is.
        studies_model: whether that model is the studied one.
        without_effect: keys that change no query, but only how it is come by.
        asks_again: whether another seed can give another text.
        faults: role -> faults of a rewritten message that can be looked for (see `gradsim.quality`).
    """

    kinds: ClassVar[frozenset[str]] = frozenset({"polars", "parquet"})
    runs_model: ClassVar[bool] = False
    studies_model: ClassVar[bool] = False
    asks_again: ClassVar[bool] = False
    without_effect: ClassVar[frozenset[str]] = frozenset()
    faults: ClassVar[Mapping[str, Collection[str]]] = {"user": tuple(FAULTS), "assistant": tuple(FAULTS)}

    method: str
    quality: Quality = Quality()

    @model_validator(mode="after")
    def _only_models_are_asked_again(self) -> Self:
        if self.quality.retries and not self.asks_again:
            raise ValueError("quality: retry is for a model that rewrites; choose keep or exclude")
        return self

    @property
    def seeded(self) -> bool:
        """Whether the study's seed bears on the queries."""
        return False

    @property
    def source(self) -> str | None:
        """The setting whose queries these are made from; None: they are made from the originals."""
        return None

    def model_configuration(self, device: str) -> "ModelConfiguration | None":
        """The model that runs on a device to make the queries; None: the studied one, or none."""
        return None

    @property
    def file(self) -> Path | None:
        """A file whose contents the queries depend on."""
        return None

    def make(self, samples: pl.DataFrame, means: Means) -> MadeQueries:
        """The queries of these samples, less those that the study excludes for their faults.

        Args:
            samples: columns `id` (as text) and `messages`: originals, or queries of the setting `source`.
            means: what there is to make them with.

        Raises:
            GradsimError: whatever a user can mend; what was paid for is kept in the journals.
        """
        made = self.rewrite(samples, means)
        faults = fault_table(samples, made.frame, self.quality.bounds, only=self.faults)
        excluded: dict[str, str] = {}
        for query, role, fault in faults.select("id", "role", "fault").iter_rows():
            if self.quality.excludes(fault):
                reason = f"its {_MESSAGE[role]}: {FAULTS[fault]}"
                excluded[query] = f"{excluded[query]}; {reason}" if query in excluded else reason
        kept = _with_faults(made.frame, faults).filter(~pl.col("id").is_in(list(excluded)))
        return replace(made, frame=kept, excluded={**made.excluded, **excluded})

    @abstractmethod
    def rewrite(self, samples: pl.DataFrame, means: Means) -> MadeQueries:
        """The same, whatever their faults."""


def rewritten(
    samples: pl.DataFrame, messages: Sequence[Sequence[Mapping[str, str]]], **known: Sequence[Sequence[Any]]
) -> pl.DataFrame:
    """The queries of samples.

    Args:
        samples: in the order of the others.
        messages: of each query.
        known: `seeds` and `finish_reasons` of each query's messages, where they are known.
    """
    unknown = [[None] * len(each) for each in messages]
    columns = {"id": samples["id"], "messages": messages, "seeds": unknown, "finish_reasons": unknown, **known}
    return pl.DataFrame({**columns, "faults": [[[] for _ in each] for each in messages]}, schema=QUERIES_SCHEMA)


def _with_faults(queries: pl.DataFrame, faults: pl.DataFrame) -> pl.DataFrame:
    """Queries with the faults of each message."""
    names: dict[tuple[str, str], list[str]] = {}
    for query, role, fault in faults.select("id", "role", "fault").iter_rows():
        names.setdefault((query, role), []).append(fault)
    lists = [
        [names.get((query, message["role"]), []) for message in messages]
        for query, messages in queries.select("id", "messages").iter_rows()
    ]
    return queries.with_columns(pl.Series("faults", lists, QUERIES_SCHEMA["faults"]))
