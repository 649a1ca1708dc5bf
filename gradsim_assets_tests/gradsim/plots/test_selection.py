"""Figures of selected layers."""

from collections.abc import Sequence

import numpy as np
import polars as pl
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gradsim import plots
from gradsim.analysis import Criterion
from gradsim.errors import TableError
from gradsim_assets_tests.gradsim.plots import frames
from gradsim_assets_tests.gradsim.plots.drawn import cells, line_labelled, points, x_values, y_values

LAYERS = frames.layer_names(2)
SIZES = frames.parameters(LAYERS)
TOTAL = float(SIZES["parameters"].sum())
SELECTION = frames.greedy(LAYERS, sizes=SIZES)
ACCURACY = frames.accuracy({"full_gradient": 0.6, "sjlt-20": 0.5, "sjlt-40": 0.52, "srht-40": 0.3, "bm25": 0.4})
CONTESTS = frames.contests(
    [
        (name, dimension, str(criterion), 0.1, 0.05, 0.2)
        for name, dimension in (("sjlt", 40), ("srht", 40))
        for criterion in Criterion
    ]
)


def curve(axes: Axes, label: str) -> np.ndarray:
    return points(line_labelled(axes, label))


def test_selections_are_drawn_in_and_out_of_sample_at_their_share() -> None:
    held_out = frames.held_out(SELECTION)
    figure = plots.greedy_selection(SELECTION, SELECTION, held_out, ACCURACY, CONTESTS)
    shares = 100 * SELECTION["parameter_share"]
    for axes, scale in zip(figure.axes, (100, 1), strict=True):
        np.testing.assert_allclose(curve(axes, "in sample"), np.stack([shares, scale * SELECTION["value"]], 1))
        held = scale * held_out.filter(pl.col("criterion") == "accuracy")["held_out"]
        np.testing.assert_allclose(curve(axes, "held out"), np.stack([shares, held], 1))
        assert len(axes.collections) >= 2, "a band each"
        assert axes.get_xscale() == "log"
    accuracy, similarity = figure.axes
    assert set(curve(accuracy, "full gradient")[:, 1]) == {60}
    assert set(curve(similarity, "full gradient")[:, 1]) == {1}


def test_projections_are_points_at_their_share() -> None:
    figure = plots.greedy_selection(SELECTION, SELECTION, frames.held_out(SELECTION), ACCURACY, CONTESTS)
    accuracy, similarity = figure.axes
    shares = [100 * 20 / TOTAL, 100 * 40 / TOTAL]
    np.testing.assert_allclose(curve(accuracy, "projection sjlt"), np.stack([shares, [50, 52]], 1))
    np.testing.assert_allclose(curve(accuracy, "projection srht"), [(shares[1], 30)])
    # How like the full gradient the smallest one is nobody says: no layer is as small.
    np.testing.assert_allclose(curve(similarity, "projection sjlt"), [(shares[1], 0.9)])
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels[-3:] == ["full gradient", "projection sjlt", "projection srht"]


@pytest.mark.parametrize(
    ("values", "sizes", "title"),
    [
        (
            [0.9, 0.8, 0.7, 0.6],
            True,
            "1 layer, 25.5\u00a0% of the parameters, reaches 90.0\u00a0% accuracy in sample and 80.0\u00a0% held out; "
            "the full gradient reaches 60.0\u00a0%",
        ),
        (
            [0.5, 0.75, 0.75, 0.6],
            False,
            "2 layers reach 75.0\u00a0% accuracy in sample and 65.0\u00a0% held out; the full gradient reaches "
            "60.0\u00a0%",
        ),
    ],
)
def test_the_title_is_about_the_shortest_of_the_best_selections(
    values: Sequence[float], sizes: bool, title: str
) -> None:
    layers = frames.layer_names(1)[:4]
    table = frames.greedy(layers, values, frames.parameters(layers) if sizes else None)
    figure = plots.greedy_selection(table, table, frames.held_out(table), ACCURACY, CONTESTS.clear())
    assert plots.title_of(figure) == title


def test_without_sizes_selections_stand_at_their_steps_and_projections_nowhere() -> None:
    unsized = frames.greedy(LAYERS)
    figure = plots.greedy_selection(unsized, unsized, frames.held_out(unsized), ACCURACY, CONTESTS.clear())
    for axes in figure.axes:
        assert list(curve(axes, "in sample")[:, 0]) == list(range(1, len(LAYERS) + 1))
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert not any("projection" in label for label in labels)
    assert "number of selected layers" in figure.axes[1].get_xlabel()


def test_one_query_has_no_held_out_curve() -> None:
    figure = plots.greedy_selection(
        SELECTION, SELECTION, frames.held_out(SELECTION).clear(), ACCURACY, CONTESTS.clear()
    )
    assert len(figure.axes[0].lines) == 4, "the selection, the full gradient, two projections"
    assert "held out" not in plots.title_of(figure)


def test_a_selection_without_steps_is_refused() -> None:
    none = SELECTION.clear()
    with pytest.raises(TableError, match=r"^greedy_by_similarity has no rows: no layer was selected; omit its figure"):
        plots.greedy_selection(SELECTION, none, frames.held_out(SELECTION), ACCURACY, CONTESTS)
    with pytest.raises(TableError, match=r"^greedy_by_accuracy has no rows"):
        plots.selection_order(none, SIZES, Criterion.ACCURACY)


def test_long_selections_are_marked_at_round_steps() -> None:
    layers = frames.layer_names(20)
    table = frames.greedy(layers)
    figure = plots.greedy_selection(table, table, frames.held_out(table), ACCURACY, CONTESTS.clear())
    line = line_labelled(figure.axes[0], "in sample")
    marked = line.get_markevery()
    assert isinstance(marked, list)
    assert list(x_values(line)[marked]) == [1, 2, 5, 10, 20, 50, 100]
    assert "markers: 1, 2, 5, 10, 20, 50 and 100 layers" in figure.axes[1].get_xlabel()


def numbers(figure: Figure) -> dict[tuple[int, int], tuple[str, str]]:
    """(row, column) -> number and weight."""
    return {
        (int(text.get_position()[1]), int(text.get_position()[0])): (text.get_text(), str(text.get_fontweight()))
        for text in figure.axes[0].texts
    }


def test_first_steps_are_numbers_in_the_grid_and_later_layers_grey() -> None:
    layers = frames.layer_names(4)  # 26 of them, taken from the last to the first
    values = [0.5, 0.6, 0.6, 0.7, *[0.65] * 22]
    figure = plots.selection_order(
        frames.greedy(layers, values), frames.parameters(layers, sized=False), Criterion.ACCURACY
    )
    (axes,) = figure.axes
    names = [label.get_text() for label in axes.get_yticklabels()]
    assert names[-2:] == ["embed_tokens", "lm_head"]
    found = numbers(figure)
    assert found[7, 0] == ("1", "bold")
    # Block 3 stands behind the column of layers outside, a gap and three blocks.
    assert found[names.index("norm_2"), 5] == ("2", "bold")
    assert found[names.index("norm_1"), 5] == ("3", "normal"), "it did not raise the value"
    assert found[names.index("MLP down"), 5] == ("4", "bold")
    assert len(found) == 20
    grey, coloured = (cells(mesh, 8, 6) for mesh in axes.collections)
    assert grey.count() == len(layers) - 20
    assert sorted(coloured.compressed()) == list(range(1, 21))


@pytest.mark.parametrize(
    ("values", "tied", "said"),
    [
        ([0.5, 0.5, 0.4, 0.5], [1, 1, 1, 1], "; no later step improves on it"),
        (
            [0.5, 0.5, 0.4, 0.5],
            [1, 3, 2, 1],
            "; no later step improves on it; from step 2 on, several layers tie",
        ),
        (
            [0.5, 0.4, 0.6, 0.7],
            [2, 1, 2, 1],
            "; 2 of 3 later steps improve on it, up to 70.0\u00a0%; in 2 of 4 steps, several layers tie",
        ),
        ([0.5, 0.75, 0.7, 0.75], [1, 1, 1, 1], "; 1 of 3 later steps improves on it, up to 75.0\u00a0%"),
        ([0.5], [1], ""),
    ],
)
def test_the_title_says_what_rises_and_what_is_tied(values: list[float], tied: list[int], said: str) -> None:
    layers = [f"w{number}" for number in range(len(values))]
    steps = frames.greedy(layers, values, tied=tied)
    title = plots.title_of(plots.selection_order(steps, frames.parameters(layers), Criterion.ACCURACY))
    assert title == f"The first layer selected by accuracy is {layers[-1]} (50.0\u00a0%){said}"


def test_many_blocks_have_a_scale_instead_of_numbers() -> None:
    layers = frames.layer_names(40)
    figure = plots.selection_order(frames.greedy(layers), frames.parameters(layers), Criterion.SIMILARITY)
    _, scale = figure.axes
    assert scale.get_ylabel() == "step"
    assert not figure.axes[0].texts


def test_without_blocks_the_first_steps_are_a_list() -> None:
    layers = [f"w{number}" for number in range(30)]
    table = frames.greedy(layers)
    figure = plots.selection_order(table, frames.parameters(layers), Criterion.SIMILARITY)
    (axes,) = figure.axes
    labels = [label.get_text() for label in axes.get_yticklabels()]
    assert labels == [f"{step}  w{30 - step}" for step in range(1, 21)]
    np.testing.assert_allclose(x_values(axes.lines[0]), table["value"][:20])


def test_transfer_has_a_row_of_panels_a_pair() -> None:
    own, value = [0.9, 0.8, 0.6], [0.5, 0.7, 0.6]
    figure = plots.transfer_of_selections(frames.transfer(["paraphrased", "model_generated", "x"], own, value))
    assert plots.title_of(figure).startswith("3 layers selected on another setting reach the accuracy")
    assert len(figure.axes) == 12
    assert figure.axes[0].get_title(loc="left") == "paraphrased → model-generated"
    for axes, scale in zip(figure.axes, [100, 1] * 6, strict=True):
        best, carried = axes.lines
        np.testing.assert_allclose(y_values(best), np.multiply(scale, own))
        np.testing.assert_allclose(y_values(carried), np.multiply(scale, value))
        assert len(axes.collections) == 1, "a band"


@pytest.mark.parametrize(
    ("own", "value", "title"),
    [
        (
            [0.9, 0.8, 0.7, 0.6, 0.5, 0.9],
            [0.1, 0.1, 0.1, 0.1, 0.4, 0.1],
            "5 layers selected on a queries reach 40.0\u00a0% accuracy (95\u00a0% interval 38.0 to 42.0) on b queries; "
            "the layers selected there reach 50.0\u00a0%",
        ),
        (
            [0.5],
            [0.75],
            "1 layer selected on a queries reaches 75.0\u00a0% accuracy (95\u00a0% interval 73.0 to 77.0) on b "
            "queries; the layer selected there reaches 50.0\u00a0%",
        ),
        (
            [0.9, 0.51],
            [0.1, 0.5],
            "2 layers selected on another setting reach the accuracy of the setting's own selection within 95\u00a0% "
            "intervals",
        ),
    ],
)
def test_the_title_of_transfer_is_about_a_few_layers(own: list[float], value: list[float], title: str) -> None:
    assert plots.title_of(plots.transfer_of_selections(frames.transfer(["a", "b"], own, value))) == title


def test_without_own_selections_the_title_of_transfer_is_neutral() -> None:
    table = frames.transfer(["a", "b"], [0.5], [0.5]).with_columns(own=frames.NULL)
    assert plots.title_of(plots.transfer_of_selections(table)).startswith("Layers selected on one setting, evaluated")


def test_numbers_of_layers_are_whole_and_shares_end_at_a_hundred() -> None:
    figure = plots.transfer_of_selections(frames.transfer(["a", "b"], [1.0] * 3, [0.98] * 3))
    for axes in figure.axes[::2]:
        assert axes.get_ylim()[1] == 100
    assert [label.get_text() for label in figure.axes[-1].get_xticklabels()] == ["1", "2", "3"]


def test_one_setting_has_no_transfer() -> None:
    with pytest.raises(
        TableError, match=r"^selection_transfer has no rows: there is only one setting; omit its figure"
    ):
        plots.transfer_of_selections(frames.transfer(["a"], [0.5], [0.5]))
