"""What is decoded: a prompt with its answer so far."""

from collections.abc import Iterable
from dataclasses import dataclass, replace


@dataclass(eq=False)
class Row:
    """A prompt and its answer so far.

    Attributes:
        position: of the prompt among all.
        ids: the prompt's tokens and the new ones, without the end token.
        prompt_length: how many of them are the prompt's.
        room: how many more it may take.
        seed: of its draws; none where the likeliest token is taken.
        ended: the model ended the answer.
    """

    position: int
    ids: list[int]
    prompt_length: int
    room: int
    seed: int | None = None
    ended: bool = False

    def with_ids(self, ids: Iterable[int]) -> "Row":
        """Return a row with another prompt."""
        ids = list(ids)
        return replace(self, ids=ids, prompt_length=len(ids))

    @property
    def new_ids(self) -> list[int]:
        """The answer so far."""
        return self.ids[self.prompt_length :]

    @property
    def complete(self) -> bool:
        """Whether nothing is to be added."""
        return self.ended or self.room == 0

    def take(self, ids: Iterable[int], end: int | None) -> None:
        """Add new ids, up to the end token or as many as there is room for; what comes after is not the answer's."""
        for token in ids:
            if self.complete:
                return
            if token == end:
                self.ended = True
            else:
                self.ids.append(token)
                self.room -= 1
