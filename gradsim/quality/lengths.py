"""Texts that became much shorter or longer."""

from dataclasses import dataclass

from gradsim.quality.rewrite import Rewrite

# A question of twelve characters has honest paraphrases of fifty.
SLACK = 20


@dataclass(frozen=True)
class LengthBounds:
    """How long a rewritten text may be: characters for one of its original's.

    Very short texts are given slack: lengths are compared as if both texts had 20 characters more. With the default
    bounds, a text of 12 characters may so become one of 76, and one of up to 40 may become as short as it likes.

    Attributes:
        least: from 0 (any) to 1.
        most: from 1 to infinity (any).
    """

    least: float = 1 / 3
    most: float = 3.0

    def __post_init__(self) -> None:
        if not 0 <= self.least <= 1:
            raise ValueError(f"least is {self.least}; a share of the original's length lies between 0 and 1")
        if not self.most >= 1:
            raise ValueError(f"most is {self.most}; a multiple of the original's length is at least 1")


def relative_length(rewrite: Rewrite) -> float:
    """Characters of the text for one of its original's, with the slack that `LengthBounds` describes."""
    return (len(rewrite.text.strip()) + SLACK) / (len(rewrite.original.strip()) + SLACK)


def is_out_of_bounds(rewrite: Rewrite, bounds: LengthBounds) -> bool:
    """Whether the text is shorter or longer than the bounds allow."""
    return not bounds.least <= relative_length(rewrite) <= bounds.most
