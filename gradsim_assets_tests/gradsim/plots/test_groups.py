"""Means over layers."""

import numpy as np
import pytest

from gradsim import plots
from gradsim.errors import TableError
from gradsim_assets_tests.gradsim.plots import frames
from gradsim_assets_tests.gradsim.plots.drawn import segments, x_values, y_values

PARTS = {"part": [("attention", 0.5), ("MLP", 0.7)]}


def test_components_are_rows_with_intervals_in_both_panels() -> None:
    means = frames.layer_means({"component": [("attention q", 0.5), ("MLP up", 0.7), ("norm", 0.25)]})
    figure = plots.means_of_groups(means)
    assert plots.title_of(figure) == (
        "Mean single-layer accuracy is highest for MLP up (70.0\u00a0%) and lowest for norm (25.0\u00a0%)"
    )
    for axes, column, scale in zip(figure.axes, ("accuracy", "similarity"), (100, 1), strict=True):
        np.testing.assert_allclose(x_values(axes.lines[0]), scale * means[column])
        ends = [part[:, 0] for part in segments(axes.collections[0])]
        np.testing.assert_allclose(ends, scale * means.select(f"{column}_low", f"{column}_high").to_numpy())
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert labels == ["attention q ×2", "MLP up ×2", "norm ×2"]


def test_groups_that_are_alike() -> None:
    means = frames.layer_means({"component": [("attention q", 0.5), ("MLP up", 0.5)]})
    assert plots.title_of(plots.means_of_groups(means)) == (
        "Mean single-layer accuracy is 50.0\u00a0% for every component"
    )


def test_blocks_are_in_order_of_their_numbers() -> None:
    means = frames.layer_means({"block": [(str(block), 0.3 + block / 100) for block in (10, 2, 1, 0)]})
    figure = plots.means_by_depth(means)
    assert plots.title_of(figure) == (
        "Mean single-layer accuracy is highest for block 10 (40.0\u00a0%) and lowest for block 0 (30.0\u00a0%)"
    )
    for axes in figure.axes:
        assert list(x_values(axes.lines[0])) == [0, 1, 2, 10]
        assert len(axes.collections) == 1, "one band"


@pytest.mark.parametrize(
    ("sign", "first", "second"), [(1, "attention", "MLP"), (-1, "MLP", "attention")], ids=["attention", "MLP"]
)
def test_the_part_that_the_title_names_is_above_zero(sign: int, first: str, second: str) -> None:
    of_blocks = {None: (0.2, 0.15, 0.25), 0: (0.3, 0.2, 0.4), 3: (0.1, -0.1, 0.2), 7: (-0.1, -0.2, -0.05)}
    table = frames.attention_against_mlp(
        {
            block: (sign * value, min(sign * low, sign * high), max(sign * low, sign * high))
            for block, (value, low, high) in of_blocks.items()
        }
    )
    figure = plots.attention_and_mlp(frames.layer_means(PARTS), table)
    title = f"{first} layers are on average 20.0 points more accurate than {second} layers"
    title += "; the difference is significant in 1 of 3 blocks"
    assert plots.title_of(figure).lower() == title.lower()
    accuracy, similarity = figure.axes
    means = {"attention": "50.0", "MLP": "70.0"}
    assert f"{first} {means[first]}\u00a0%, {second} {means[second]}\u00a0%" in accuracy.get_title(loc="left")
    assert f"(mean of {first} layers minus mean of {second} layers)" in similarity.get_xlabel()
    for axes, scale in ((accuracy, 100), (similarity, 0.1)):
        marks = next(line for line in axes.lines if line.get_marker() in ("o", "s"))
        assert list(x_values(marks)) == [0, 3, 7]
        np.testing.assert_allclose(y_values(marks), [0.3 * scale, 0.1 * scale, -0.1 * scale])
        ends = [part[:, 1] for part in segments(axes.collections[0])]
        np.testing.assert_allclose(ends, scale * np.array([[0.2, 0.4], [-0.1, 0.2], [-0.2, -0.05]]))
    assert [text.get_text() for text in accuracy.texts] == ["all blocks\n+20.0"]
    assert [text.get_text() for text in similarity.texts] == ["all blocks\n+0.020"]


@pytest.mark.parametrize(
    ("overall", "title"),
    [
        ((-0.1, -0.2, 0.1), "The mean accuracies of attention and MLP layers do not differ significantly"),
        ((0.1, 0.05, 0.2), "Attention layers are on average 10.0 points more accurate than MLP layers"),
    ],
)
def test_attention_and_mlp_without_blocks(overall: tuple[float, float, float], title: str) -> None:
    figure = plots.attention_and_mlp(frames.layer_means(PARTS), frames.attention_against_mlp({None: overall}))
    assert plots.title_of(figure).startswith(title)
    assert "block" not in plots.title_of(figure)
    assert plots.to_png(figure)


def test_what_the_model_has_not_is_refused() -> None:
    means = frames.layer_means(PARTS)
    with pytest.raises(TableError, match=r"^attention_against_mlp has no rows: the model lacks attention or MLP"):
        plots.attention_and_mlp(means, frames.attention_against_mlp({}))
    for draw, grouping in ((plots.means_of_groups, "component"), (plots.means_by_depth, "block")):
        with pytest.raises(TableError, match=f"^layer_means has no rows of grouping '{grouping}'; omit its figure"):
            draw(means)
