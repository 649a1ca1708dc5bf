"""Length ratios of rewritten texts."""

from gradsim.queries.quality.rewrite import Rewrite
from gradsim.study.settings import LengthBounds

# A question of 12 characters has valid paraphrases of 50.
SLACK = 20


def relative_length(rewrite: Rewrite) -> float:
    """Return the ratio of the text's characters to the original's, with the slack described in `LengthBounds`."""
    return (len(rewrite.text.strip()) + SLACK) / (len(rewrite.original.strip()) + SLACK)


def is_out_of_bounds(rewrite: Rewrite, bounds: LengthBounds) -> bool:
    """Return whether the text is shorter or longer than the bounds allow."""
    return not bounds.least <= relative_length(rewrite) <= bounds.most
