"""Rows to decode."""

from collections.abc import Iterable
from dataclasses import dataclass, replace


@dataclass(eq=False)
class Row:
    """A prompt with its answer so far.

    Attributes:
        position: position of the prompt in the input.
        ids: tokens of prompt and answer, without the end token.
        prompt_length: number of prompt tokens.
        room: number of tokens that may be added.
        seed: sampling seed; None: greedy decoding.
        ended: whether the model ended the answer.
    """

    position: int
    ids: list[int]
    prompt_length: int
    room: int
    seed: int | None = None
    ended: bool = False

    def with_ids(self, ids: Iterable[int]) -> "Row":
        """Return a copy with another prompt and no answer."""
        ids = list(ids)
        return replace(self, ids=ids, prompt_length=len(ids))

    @property
    def new_ids(self) -> list[int]:
        """Tokens of the answer so far."""
        return self.ids[self.prompt_length :]

    @property
    def complete(self) -> bool:
        """Whether the answer is complete."""
        return self.ended or self.room == 0

    def take(self, ids: Iterable[int], end: int | None) -> None:
        """Add new ids up to the end token or the maximum length; ignore the rest."""
        for token in ids:
            if self.complete:
                return
            if token == end:
                self.ended = True
            else:
                self.ids.append(token)
                self.room -= 1
