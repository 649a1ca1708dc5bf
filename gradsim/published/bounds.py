"""Numbers that cannot be: a cosine beyond one, a dot beyond the product of its gradients' norms."""

import numpy as np

from gradsim.errors import TableError
from gradsim.published.merging import Merged, file_of, place_of, relative
from gradsim.published.reading import AGAIN, Floats

# What sums in float32, in any order, stay well below.
_COSINE_ROUNDING = 1e-4
_DOT_ROUNDING = 1e-3


def check_cosines(cosines: Merged, kind: str) -> None:
    """Whether all lie between -1 and 1, but for rounding.

    Args:
        cosines: of pairs.
        kind: what they are, in the plural.

    Raises:
        TableError: one does not.
    """
    sizes = np.abs(cosines.values)
    beyond = sizes > 1 + _COSINE_ROUNDING
    if beyond.any():
        row, column = divmod(int(sizes.argmax()), sizes.shape[1])
        raise TableError(
            f"{file_of(cosines, row)}: {place_of(cosines, row, column)} is {cosines.values[row, column]} and a cosine "
            f"is never beyond 1 ({beyond.sum():,} of {sizes.size:,} {kind} are, this one most); {AGAIN}"
        )


def check_dots(dots: Merged, norms: Floats) -> None:
    """Whether no dot is larger than the product of its two gradients' norms (Cauchy and Schwarz), but for rounding.

    Args:
        dots: of pairs and layers.
        norms: those products, (pairs, layers).

    Raises:
        TableError: one is.
    """
    shares = relative(dots.values, norms)
    beyond = shares > 1 + _DOT_ROUNDING
    if beyond.any():
        row, column = divmod(int(shares.argmax()), shares.shape[1])
        raise TableError(
            f"{file_of(dots, row)}: {place_of(dots, row, column)} is {dots.values[row, column]} and a dot is never "
            f"beyond the product of its norms, by the self dots {norms[row, column]:.8g} ({beyond.sum():,} of "
            f"{shares.size:,} dots are, this one most). Dots and self dots are of different runs, or damaged: take "
            "the files from their source again"
        )
