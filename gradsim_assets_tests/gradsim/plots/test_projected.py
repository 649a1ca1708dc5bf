"""Selected layers beside projections."""

import numpy as np
import pytest

from gradsim import plots
from gradsim.errors import TableError
from gradsim_assets_tests.gradsim.plots import frames

ABOVE, BELOW, AROUND = (0.1, 0.05, 0.2), (-0.2, -0.3, -0.1), (0.01, -0.1, 0.1)


def contests(*differences: tuple[float, float, float]) -> list[tuple[str, int, str, float, float, float]]:
    return [("sjlt", 40 + position, "accuracy", *ends) for position, ends in enumerate(differences)]


@pytest.mark.parametrize(
    ("differences", "title"),
    [
        (
            [ABOVE],
            "Select: {layers} find 10.0 points more sources than {many}; {each} interval is above 0",
        ),
        (
            [ABOVE, (0.3, 0.1, 0.4)],
            "Select: {layers} find 10.0 to 30.0 points more sources than {many}; {all_their} are above 0",
        ),
        (
            [BELOW],
            "Project: {layers} find 20.0 points fewer sources than {many}; {each} interval is below 0",
        ),
        ([AROUND], "Select or project is undecided by sources found: {each} interval contains 0"),
        ([AROUND, AROUND], "Select or project is undecided by sources found: {all_of_them} contain 0"),
        (
            [ABOVE, BELOW, AROUND],
            "{Layers} find more sources in 1 and fewer sources in 1 of 3 comparisons with {many}; "
            "in 1 {each} interval contains 0",
        ),
        (
            [ABOVE, BELOW],
            "{Layers} find more sources in 1 and fewer sources in 1 of 2 comparisons with {many}",
        ),
    ],
)
def test_the_title_says_what_the_intervals_say(differences: list[tuple[float, float, float]], title: str) -> None:
    figure = plots.selected_or_projected(frames.contests(contests(*differences)))
    assert plots.title_of(figure) == title.format(
        layers="layers chosen for it",
        Layers="Layers chosen for it",
        many="as many dimensions",
        each="the 95\u00a0%",
        all_their="all their 95\u00a0% intervals",
        all_of_them="all 95\u00a0% intervals",
    )


def test_both_and_their_difference_are_drawn_for_both_measures() -> None:
    table = frames.contests(
        [
            ("as_published", 12_000, "accuracy", *ABOVE),
            ("as_published", 12_000, "similarity", *AROUND),
            ("sjlt", 40, "accuracy", *BELOW),
        ]
    )
    figure = plots.selected_or_projected(table)
    found, difference, similar, similar_difference = figure.axes
    labels = [label.get_text() for label in found.get_yticklabels()]
    assert labels == ["as published\n12\u00a0k dim.", "sjlt\n40 dim."]
    lines = {line.get_label(): line for line in found.lines}
    np.testing.assert_allclose(lines["projected"].get_xdata(), [50, 50, 50])
    np.testing.assert_allclose(lines["selected by accuracy"].get_xdata(), [60, 30])
    np.testing.assert_allclose(lines["selected by similarity"].get_xdata(), [51])
    # Rows of one projection stand nearer to each other than to the next's.
    first, second, third = lines["projected"].get_ydata()
    assert first - second < second - third
    ends = np.concatenate([[part[:, 0] for part in lines.get_segments()] for lines in difference.collections])
    np.testing.assert_allclose(ends, [[5, 20], [-30, -10], [-10, 10]])
    assert [text.get_text() for text in difference.texts] == ["+10.0", "+1.0", "−20.0"]
    assert {text.get_text() for text in similar_difference.texts} == {"−0.100"}
    lines = {line.get_label(): line for line in similar.lines}
    np.testing.assert_allclose(lines["selected by accuracy"].get_xdata(), [0.8, 0.8])


def test_nothing_projected_is_refused() -> None:
    with pytest.raises(
        TableError, match=r"^select_or_project has no rows: nothing was projected, .*; leave its figure"
    ):
        plots.selected_or_projected(frames.contests([]))
