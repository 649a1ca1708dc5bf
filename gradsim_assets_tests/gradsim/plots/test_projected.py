"""Selected layers beside projections."""

import numpy as np
import polars as pl
import pytest

from gradsim import plots
from gradsim.errors import TableError
from gradsim.plots.projected import told_apart
from gradsim_assets_tests.gradsim.plots import frames
from gradsim_assets_tests.gradsim.plots.drawn import segments, x_values, y_values

ABOVE, BELOW, AROUND = (0.1, 0.05, 0.2), (-0.2, -0.3, -0.1), (0.01, -0.1, 0.1)
SIZE = "accurate than projections of the same size; 95\u00a0% interval"


def contests(*differences: tuple[float, float, float]) -> list[tuple[str, int, str, float, float, float]]:
    return [("sjlt", 40 + position, "accuracy", *ends) for position, ends in enumerate(differences)]


@pytest.mark.parametrize(
    ("differences", "p", "title"),
    [
        (
            [ABOVE],
            [0.049],
            f"Select: selected layers are 10.0 points more {SIZE} from +5.0 to +20.0",
        ),
        (
            [ABOVE, (0.3, 0.1, 0.4)],
            [0, 0],
            f"Select: selected layers are 10.0 to 30.0 points more {SIZE}s from +5.0 to +40.0",
        ),
        (
            [BELOW],
            [0],
            "Project: projections are 20.0 points more accurate than selected layers of the same size; "
            "95\u00a0% interval from +10.0 to +30.0",
        ),
        (
            [BELOW, AROUND],
            [0, 1],
            "Projections are more accurate in 1 of 2 comparisons with selected layers of the same size; "
            "not significant in 1",
        ),
        # The test decides, not the interval.
        (
            [ABOVE],
            [0.05],
            "Selected layers and projections do not differ significantly in accuracy; "
            "95\u00a0% interval from +5.0 to +20.0",
        ),
        (
            [AROUND, AROUND],
            [1, 1],
            "Selected layers and projections do not differ significantly in accuracy; "
            "95\u00a0% intervals from −10.0 to +10.0",
        ),
        (
            [ABOVE, BELOW, AROUND],
            [0, 0, 1],
            "Selected layers are more accurate in 1 and less accurate in 1 of 3 comparisons with projections of the "
            "same size; not significant in 1",
        ),
        (
            [ABOVE, BELOW],
            [0, 0],
            "Selected layers are more accurate in 1 and less accurate in 1 of 2 comparisons with projections of the "
            "same size",
        ),
    ],
)
def test_the_title_says_what_the_tests_say(
    differences: list[tuple[float, float, float]], p: list[float], title: str
) -> None:
    table = frames.contests(contests(*differences)).with_columns(p_holm=pl.Series(p, dtype=pl.Float64))
    assert plots.title_of(plots.selected_or_projected(table)) == title


def test_figure_and_answer_have_one_rule() -> None:
    rows = frames.contests(contests(ABOVE, ABOVE, BELOW, (0.0, -0.1, 0.1)))
    assert told_apart(rows.with_columns(p_holm=pl.Series([0.01, 0.05, 0.04, 0.01]))) == (1, 1)


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
    np.testing.assert_allclose(x_values(lines["projected"]), [50, 50, 50])
    np.testing.assert_allclose(x_values(lines["selected by accuracy"]), [60, 30])
    np.testing.assert_allclose(x_values(lines["selected by similarity"]), [51])
    # Rows of one projection stand nearer to each other than to the next's.
    first, second, third = y_values(lines["projected"])
    assert first - second < second - third
    ends = np.concatenate([[part[:, 0] for part in segments(lines)] for lines in difference.collections])
    np.testing.assert_allclose(ends, [[5, 20], [-30, -10], [-10, 10]])
    assert [text.get_text() for text in difference.texts] == ["+10.0", "+1.0", "−20.0"]
    assert {text.get_text() for text in similar_difference.texts} == {"−0.100"}
    lines = {line.get_label(): line for line in similar.lines}
    np.testing.assert_allclose(x_values(lines["selected by accuracy"]), [0.8, 0.8])


@pytest.mark.parametrize(
    ("ends", "order", "sign"), [(ABOVE, "selected − projected", 1), (BELOW, "projected − selected", -1)]
)
def test_the_difference_is_that_of_the_more_accurate(ends, order: str, sign: int) -> None:
    """To the right of zero means more accurate, as the title says."""
    figure = plots.selected_or_projected(frames.contests(contests(ends)).with_columns(p_holm=0.0))
    _, difference, _, similar = figure.axes
    assert difference.get_title(loc="left") == f"{order} (points)"
    assert similar.get_title(loc="left") == order
    interval = segments(difference.collections[0])[0][:, 0]
    np.testing.assert_allclose(sorted(interval), sorted(100 * sign * end for end in ends[1:]))
    drawn = next(line for line in difference.lines if line.get_marker() == "o")
    assert x_values(drawn)[0] == pytest.approx(100 * sign * ends[0])
    assert x_values(drawn)[0] > 0
    assert " more accurate than " in plots.title_of(figure)


def test_nothing_projected_is_refused() -> None:
    with pytest.raises(TableError, match=r"^select_or_project has no rows: nothing was projected, .*; omit its figure"):
        plots.selected_or_projected(frames.contests([]))
