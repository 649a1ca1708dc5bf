"""Intervals for shares of queries."""

from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike, NDArray

Z_95 = NormalDist().inv_cdf(0.975)


def wilson_interval(successes: ArrayLike, trials: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Lower and upper end of Wilson's 95 % score interval, without continuity correction.

    Successes need not be whole: a query whose best similarity is shared by n candidates counts 1/n.
    The formula is that of E. B. Wilson, "Probable inference, the law of succession, and statistical
    inference", Journal of the American Statistical Association 22 (1927), 209-212.

    Args:
        successes: between 0 and `trials`, any shape.
        trials: at least 1, broadcast against `successes`.
    """
    successes, trials = np.broadcast_arrays(
        np.asarray(successes, dtype=np.float64), np.asarray(trials, dtype=np.float64)
    )
    if np.any(trials < 1) or np.any(successes < 0) or np.any(successes > trials):
        raise ValueError("an interval needs at least one trial and 0 <= successes <= trials")
    share = successes / trials
    widening = Z_95**2 / trials
    centre = (share + widening / 2) / (1 + widening)
    half_width = np.sqrt(share * (1 - share) * widening + widening**2 / 4) / (1 + widening)
    # At the ends the two terms are equal, and rounding must not leave a trace.
    low = np.where(successes == 0, 0.0, centre - half_width)
    high = np.where(successes == trials, 1.0, centre + half_width)
    return low, high
