"""What a study does with faulty texts."""

from collections.abc import Iterable
from typing import Literal, Self

from pydantic import Field, model_validator

from gradsim.quality import FAULTS, LengthBounds
from gradsim.section import Section

Choice = Literal["keep", "retry", "exclude"]


class Quality(Section):
    """For each fault that a rewritten text can have: keep the text, ask again with another seed, or exclude its sample.

    `retry` asks up to `attempts` times in all; a sample whose text is as faulty then is excluded.
    """

    empty: Choice = "keep"
    truncated: Choice = "keep"
    refused: Choice = "keep"
    executed: Choice = "keep"
    unchanged: Choice = "keep"
    language: Choice = "keep"
    length: Choice = "keep"
    attempts: int = Field(3, ge=1, description="how often a text is asked for, at most")
    shortest: float = Field(1 / 3, gt=0, le=1, description="characters of a text, for one of its original")
    longest: float = Field(3.0, ge=1, description="the same, at most")

    @model_validator(mode="after")
    def _attempts_are_needed(self) -> Self:
        if self.attempts == 1 and "retry" in self._choices.values():
            raise ValueError("quality.attempts: one attempt leaves none to retry; raise it")
        return self

    @property
    def bounds(self) -> LengthBounds:
        """What lengths are in order."""
        return LengthBounds(self.shortest, self.longest)

    @property
    def retries(self) -> bool:
        """Whether any fault has a text asked for again."""
        return "retry" in self._choices.values()

    def to_be_retried(self, faults: Iterable[str]) -> bool:
        """Whether a text with these faults is asked for again."""
        return any(self._choices[fault] == "retry" for fault in faults)

    def excludes(self, fault: str) -> bool:
        """Whether a fault of a text, after the last attempt, excludes its sample."""
        return self._choices[fault] != "keep"

    @property
    def _choices(self) -> dict[str, Choice]:
        return {fault: getattr(self, fault) for fault in FAULTS}


class RewritingQuality(Quality):
    """The same where a model can be asked again: a text that is none is no query."""

    empty: Choice = "retry"
