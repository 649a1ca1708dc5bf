"""Paraphrases by a model behind an OpenAI-compatible API."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar, Literal, Self

import polars as pl
from pydantic import Field, model_validator

from gradsim.queries.rewriting import Answer, Request, Rewriting
from gradsim.queries.way import Means
from gradsim.section import Section

if TYPE_CHECKING:
    from gradsim.paraphrase import Estimate, Paraphraser

# The address of OpenAI's own API.
OPENAI = "https://api.openai.com/v1"


class Prices(Section):
    """In dollars for a million tokens."""

    input: float = Field(ge=0)
    output: float = Field(ge=0)


class Paraphrase(Rewriting):
    """Prompt and answer rewritten by a model behind an OpenAI-compatible API."""

    kinds: ClassVar[frozenset[str]] = frozenset({"openai", "polars", "parquet"})
    without_effect: ClassVar[frozenset[str]] = frozenset(
        {"concurrency", "requests_per_minute", "tokens_per_minute", "timeout", "prices", "max_cost"}
    )

    method: Literal["paraphrase"] = "paraphrase"
    model: str = Field("gpt-4o-mini-2024-07-18", min_length=1)
    concurrency: int = Field(8, ge=1, le=1000, description="requests in flight at once")
    requests_per_minute: int | None = Field(None, ge=1)
    tokens_per_minute: int | None = Field(None, ge=1, description="of questions and answers")
    timeout: float = Field(120.0, gt=0, description="seconds until a request counts as lost")
    prices: Prices | None = None
    max_cost: float | None = Field(
        None, gt=0, description="dollars that all runs of this setting may cost together, with this model"
    )

    @model_validator(mode="after")
    def _cost_can_be_told(self) -> Self:
        if self.max_cost is not None and self.prices is None:
            raise ValueError("max_cost: needs prices, in dollars for a million tokens: {input: 0.15, output: 0.60}")
        return self

    def ask(self, requests: Sequence[Request], means: Means) -> Mapping[Request, Answer]:
        """See `Rewriting.ask`."""
        return self._paraphraser(means).ask(requests, means.progress, means.say)

    def estimate(self, samples: pl.DataFrame, means: Means) -> "Estimate":
        """What asking for the samples' texts, each once, would take; nothing is asked.

        Raises:
            GradsimError: the address is none, or the journal cannot be read.
        """
        return self._paraphraser(means).estimate(self.first_requests(samples, means))

    def _paraphraser(self, means: Means) -> "Paraphraser":
        from gradsim.paraphrase import Paraphraser  # noqa: PLC0415 - a study file can be read without the client

        return Paraphraser(self, means.journals, base_url=means.base_url, name=means.name)
