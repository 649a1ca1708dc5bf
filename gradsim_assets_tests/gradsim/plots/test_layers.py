"""Figures with one mark a layer."""

import numpy as np
import polars as pl
import pytest

from gradsim import analysis, plots
from gradsim.errors import TableError
from gradsim.plots import style
from gradsim_assets_tests.gradsim.plots import frames


@pytest.mark.parametrize("sized", [True, False])
def test_few_layers_have_intervals(sized: bool) -> None:
    layers = frames.layer_names(2)
    accuracy = frames.accuracy_per_layer(layers)
    figure = plots.accuracy_of_layers(accuracy, frames.parameters(layers, sized=sized))
    (axes,) = figure.axes
    intervals = np.array([segment[:, 0] for segment in axes.collections[0].get_segments()])
    np.testing.assert_allclose(intervals, 100 * accuracy.select("low", "high").to_numpy())
    assert plots.title_of(figure) == (
        "Alone, lm_head finds the most sources (90.0\u00a0%), embed_tokens the fewest (20.0\u00a0%)"
    )


@pytest.mark.parametrize("sized", [True, False])
def test_many_layers_are_a_heat_map_of_blocks_and_components(sized: bool) -> None:
    layers = frames.layer_names(10)
    accuracy = frames.accuracy_per_layer(layers)
    axes, _ = plots.accuracy_of_layers(accuracy, frames.parameters(layers, sized=sized)).axes
    names = [label.get_text() for label in axes.get_yticklabels()]
    # A block has two norms, which therefore go by their names.
    assert names == [
        "attention q", "attention k", "MLP up", "MLP down", "norm_1", "norm_2", "embed_tokens", "lm_head",
    ]  # fmt: skip
    cells = axes.collections[0].get_array().reshape(len(names), 10)
    inside = 100 * accuracy["accuracy"].to_numpy()[1:-1].reshape(10, 6).T
    np.testing.assert_allclose(cells[:6], inside)
    np.testing.assert_allclose(cells[6:, 0], 100 * accuracy["accuracy"].to_numpy()[[0, -1]])
    assert cells.mask[6:, 1:].all()


def test_layers_of_equal_accuracy_have_no_best() -> None:
    layers = frames.layer_names(1)
    tied = frames.accuracy_per_layer(layers, [0.5] * len(layers))
    figure = plots.accuracy_of_layers(tied, frames.parameters(layers))
    assert plots.title_of(figure) == "Alone, every layer finds 50.0\u00a0% of the sources"


@pytest.mark.parametrize("sized", [True, False])
def test_every_layer_is_a_mark_with_an_interval_at_its_similarity(sized: bool) -> None:
    layers = frames.layer_names(2)
    similar, parameters = frames.similarity_to_full_gradient(layers), frames.parameters(layers, sized=sized)
    (axes,) = plots.layers_against_full_gradient(similar, parameters).axes
    drawn = np.concatenate([line.get_ydata() for line in axes.lines])
    np.testing.assert_allclose(np.sort(drawn), similar["similarity"])
    ends = np.concatenate([[part[:, 1] for part in lines.get_segments()] for lines in axes.collections])
    np.testing.assert_allclose(np.sort(ends, axis=0), similar.select("low", "high").to_numpy())
    for line in axes.lines:
        of_component = parameters.filter(pl.col("component") == line.get_label())
        assert len(line.get_xdata()) == len(of_component)


def test_layers_of_one_size_stand_around_it() -> None:
    names = ["model.layers.0.self_attn.q_proj.weight", "model.layers.0.mlp.up_proj.weight"]
    parameters = analysis.parameters_per_layer(pl.DataFrame({"layer": names, "parameters": [4, 4]}))
    similar = frames.similarity_to_full_gradient(names)
    (axes,) = plots.layers_against_full_gradient(similar, parameters).axes
    (left,), (right,) = (line.get_xdata() for line in axes.lines)
    assert left < 50 < right
    assert left * right == pytest.approx(50**2)


def test_a_crowd_of_one_size_stays_near_its_size() -> None:
    names = frames.layer_names(100, ["self_attn.q_proj", "self_attn.k_proj"])[1:-1]
    sizes = pl.DataFrame({"layer": names, "parameters": [4] * len(names)})
    figure = plots.layers_against_full_gradient(
        frames.similarity_to_full_gradient(names), analysis.parameters_per_layer(sizes)
    )
    places = np.concatenate([line.get_xdata() for line in figure.axes[0].lines])
    assert (np.diff(places) > 0).all(), "by component, then depth"
    assert places[-1] / places[0] < 10**0.41


def test_layers_of_unknown_size_stand_at_their_block() -> None:
    layers = frames.layer_names(3)
    similar = frames.similarity_to_full_gradient(layers)
    figure = plots.layers_against_full_gradient(similar, frames.parameters(layers, sized=False))
    assert plots.title_of(figure) == "lm_head sees the pairs most as the full gradient does (cosine 0.810)"
    (axes,) = figure.axes
    places = {line.get_label(): list(line.get_xdata()) for line in axes.lines}
    assert places["MLP up"] == [0, 1, 2]
    assert places["embedding"] == places["head"] == [-2]
    ticks = zip(axes.get_xticks(), axes.get_xticklabels(), strict=True)
    assert [(place, label.get_text()) for place, label in ticks] == [(-2, "none"), (0, "0"), (1, "1"), (2, "2")]


def test_components_are_told_apart_without_colour() -> None:
    assert len(set(style.COMPONENT_MARKERS.values())) == len(style.COMPONENT_MARKERS)


def test_parameters_of_components() -> None:
    names = ["model.embed_tokens.weight", "model.layers.0.mlp.up_proj.weight", "model.layers.1.mlp.up_proj.weight"]
    parameters = analysis.parameters_per_layer(pl.DataFrame({"layer": names, "parameters": [2, 1, 5]}))
    figure = plots.parameters_of_components(parameters)
    assert [bar.get_width() for bar in figure.axes[0].patches] == [25, 75]
    assert plots.title_of(figure) == "Of 8 parameters: MLP 75.0\u00a0%, embedding 25.0\u00a0%"


def test_unknown_sizes_are_not_drawn() -> None:
    with pytest.raises(TableError, match=r"^parameters_per_layer lacks sizes of layers: leave the figure"):
        plots.parameters_of_components(frames.parameters(frames.layer_names(1), sized=False))


def test_a_layer_that_is_not_known_is_refused() -> None:
    layers = frames.layer_names(1)
    parameters = frames.parameters(layers).head(2)
    for draw, table in (
        (plots.accuracy_of_layers, frames.accuracy_per_layer(layers)),
        (plots.layers_against_full_gradient, frames.similarity_to_full_gradient(layers)),
    ):
        with pytest.raises(TableError) as error:
            draw(table, parameters)
        assert str(error.value) == (
            "layer 'model.layers.0.self_attn.k_proj.weight' is not in parameters_per_layer: materialize it again"
        )


def test_differences_show_which_places_a_layer_can_have() -> None:
    layers = frames.layer_names(1)  # 8 of them, better and better
    accuracy = frames.accuracy_per_layer(layers)
    figure = plots.differences_of_layers(frames.layer_differences(layers, 3), accuracy)
    assert plots.title_of(figure) == ("lm_head (90.0\u00a0%) finds the most sources, but 3 of 8 layers may be the best")
    accuracies, ranges = figure.axes
    drawn = sorted((float(x), float(y)) for line in accuracies.lines for x, y in line.get_xydata())
    assert drawn == [(place, pytest.approx(share)) for place, share in enumerate(100 * accuracy["accuracy"][::-1], 1)]
    others, best = (lines.get_segments() for lines in ranges.collections)
    assert [tuple(part[:, 1]) for part in best] == [(0.5, 3.5), (0.5, 4.5), (0.5, 5.5)]
    assert [tuple(part[:, 1]) for part in others] == [(1.5, 6.5), (2.5, 7.5), (3.5, 8.5), (4.5, 8.5), (5.5, 8.5)]
    names = [label.get_text() for label in ranges.get_xticklabels()]
    assert names[0] == "lm_head"
    assert names[-1] == "embed_tokens"


@pytest.mark.parametrize(
    ("apart", "title"),
    [
        (1, "lm_head (90.0\u00a0%) finds significantly more sources than every other of 8 layers"),
        (9, "lm_head (90.0\u00a0%) finds the most sources, but 8 of 8 layers may be the best"),
    ],
)
def test_differences_of_all_or_no_layers(apart: int, title: str) -> None:
    layers = frames.layer_names(1)
    figure = plots.differences_of_layers(frames.layer_differences(layers, apart), frames.accuracy_per_layer(layers))
    assert plots.title_of(figure) == title


def test_differences_of_one_layer() -> None:
    table = frames.accuracy_per_layer(["w"], [0.5])
    figure = plots.differences_of_layers(frames.layer_differences(["w"], 1), table)
    assert plots.title_of(figure) == "The only layer, w (50.0\u00a0%), has none to be compared with"


def test_differences_of_layers_that_are_not_known_are_refused() -> None:
    layers = frames.layer_names(1)
    with pytest.raises(TableError, match=r"is not in accuracy_per_layer: materialize it again$"):
        plots.differences_of_layers(frames.layer_differences(layers, 1), frames.accuracy_per_layer(layers[:3]))
