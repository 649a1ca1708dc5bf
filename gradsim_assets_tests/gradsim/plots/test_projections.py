"""Errors of projections."""

import numpy as np
import pytest

from gradsim import plots
from gradsim_assets_tests.gradsim.plots import frames
from gradsim_assets_tests.gradsim.plots.drawn import segments, x_values


def test_stored_and_expected_errors_stand_side_by_side() -> None:
    audit = frames.projection_audit({"sjlt": 0.5, "as_published": 2.0})
    figure = plots.errors_of_projections(audit)
    assert plots.title_of(figure) == "Projected cosines have 0.50 and 2.00 times the error predicted by theory"
    errors, agreements = figure.axes
    theory, measured = errors.lines
    assert list(x_values(theory)) == [0.01, 0.01]
    assert list(x_values(measured)) == [0.005, 0.02]
    _, stored = agreements.lines
    np.testing.assert_allclose(x_values(stored), [0.1, 0.1])
    ends = [part[:, 0] for part in segments(agreements.collections[0])]
    np.testing.assert_allclose(ends, [[0.05, 0.2], [0.05, 0.2]])
    labels = [label.get_text() for label in errors.get_yticklabels()]
    assert labels == ["sjlt\n12\u00a0k dimensions", "as published\n12\u00a0k dimensions"]


@pytest.mark.filterwarnings("error")
def test_a_projection_without_error_or_theory() -> None:
    perfect = frames.projection_audit({"all": float("nan")}).with_columns(
        frames.NULL.alias("sd_ratio"), agreement=1.0, agreement_low=1.0, agreement_high=1.0, error_sd=0.0
    )
    figure = plots.errors_of_projections(perfect)
    assert plots.title_of(figure) == "Projected cosines compared with those of the full gradient"
    assert plots.to_png(figure)
