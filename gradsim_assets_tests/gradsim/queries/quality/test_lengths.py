import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradsim.queries.quality import Rewrite, find_faults
from gradsim.study.settings import LengthBounds

DEFAULT = LengthBounds()


def is_out_of_bounds(original: int, text: int, bounds: LengthBounds = DEFAULT) -> bool:
    return "length" in find_faults(Rewrite("assistant", "o" * original, "t" * text, "", None), bounds)


@pytest.mark.parametrize(
    ("original", "text", "expected"),
    [
        (1000, 319, True),
        (1000, 321, False),
        (1000, 3039, False),
        (1000, 3041, True),
        (12, 76, False),  # slack
        (12, 77, True),
        (39, 1, False),
        (60, 6, True),
    ],
)
def test_default_bounds_are_a_third_and_three_with_slack(original: int, text: int, expected: bool) -> None:
    assert is_out_of_bounds(original, text) == expected


@given(st.integers(1, 300), st.integers(1, 300), st.floats(0.01, 1), st.floats(1, 100))
def test_what_lies_within_the_bounds_is_in_order(original: int, text: int, least: float, most: float) -> None:
    """Slack never makes the bounds narrower."""
    if least <= text / original <= most:
        assert not is_out_of_bounds(original, text, LengthBounds(least * (1 - 1e-9), most * (1 + 1e-9)))


@given(st.integers(1, 300), st.integers(1, 300))
def test_bounds_can_be_taken_away(original: int, text: int) -> None:
    assert not is_out_of_bounds(original, text, LengthBounds(0, math.inf))


@pytest.mark.parametrize(("least", "most"), [(-0.1, 3), (1.1, 3), (math.nan, 3), (0.5, 0.9), (0.5, math.nan)])
def test_impossible_bounds_are_refused(least: float, most: float) -> None:
    with pytest.raises(ValueError, match="of the original's length"):
        LengthBounds(least, most)
