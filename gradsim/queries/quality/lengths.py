"""Texts that became much shorter or longer."""

from gradsim.queries.quality.rewrite import Rewrite
from gradsim.study.settings import LengthBounds

# A question of twelve characters has honest paraphrases of fifty.
SLACK = 20


def relative_length(rewrite: Rewrite) -> float:
    """Characters of the text for one of its original's, with the slack that `LengthBounds` describes."""
    return (len(rewrite.text.strip()) + SLACK) / (len(rewrite.original.strip()) + SLACK)


def is_out_of_bounds(rewrite: Rewrite, bounds: LengthBounds) -> bool:
    """Whether the text is shorter or longer than the bounds allow."""
    return not bounds.least <= relative_length(rewrite) <= bounds.most
