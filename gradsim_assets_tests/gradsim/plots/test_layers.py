"""Figures with one mark a layer."""

import numpy as np
import polars as pl
import pytest
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from gradsim import analysis, plots
from gradsim.errors import TableError
from gradsim.plots import style
from gradsim_assets_tests.gradsim.plots import frames
from gradsim_assets_tests.gradsim.plots.drawn import cells as cells_of
from gradsim_assets_tests.gradsim.plots.drawn import points, segments, x_values, y_values


@pytest.mark.parametrize("sized", [True, False])
def test_few_layers_have_intervals(sized: bool) -> None:
    layers = frames.layer_names(2)
    accuracy = frames.accuracy_per_layer(layers)
    figure = plots.accuracy_of_layers(accuracy, frames.parameters(layers, sized=sized))
    (axes,) = figure.axes
    intervals = np.array([segment[:, 0] for segment in segments(axes.collections[0])])
    np.testing.assert_allclose(intervals, 100 * accuracy.select("low", "high").to_numpy())
    assert plots.title_of(figure) == (
        "Single-layer accuracy is highest for lm_head (90.0\u00a0%) and lowest for embed_tokens (20.0\u00a0%)"
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
    # Layers outside the blocks stand left of block 0, a column between them.
    cells = cells_of(axes.collections[0], len(names), 12)
    inside = 100 * accuracy["accuracy"].to_numpy()[1:-1].reshape(10, 6).T
    np.testing.assert_allclose(cells[:6, 2:], inside)
    np.testing.assert_allclose(cells[6:, 0], 100 * accuracy["accuracy"].to_numpy()[[0, -1]])
    assert cells.count() == len(layers)
    ticks = {
        tick - 0.5: label.get_text() for tick, label in zip(axes.get_xticks(), axes.get_xticklabels(), strict=True)
    }
    assert ticks == {0: "none", **{2 + block: str(block) for block in range(10)}}


def test_numbers_in_cells_have_four_letters_at_most() -> None:
    layers = frames.layer_names(8)
    accuracy = frames.accuracy_per_layer(layers, [1.0, 0.96, *[0.5] * (len(layers) - 2)])
    axes, _ = plots.accuracy_of_layers(accuracy, frames.parameters(layers)).axes
    assert {text.get_text() for text in axes.texts} == {"100", "96.0", "50.0"}


def test_blocks_are_the_first_columns_where_no_layer_is_outside() -> None:
    layers = frames.layer_names(40)[1:-1]
    axes, _ = plots.accuracy_of_layers(frames.accuracy_per_layer(layers), frames.parameters(layers)).axes
    assert [label.get_text() for label in axes.get_xticklabels()] == [str(block) for block in range(0, 40, 2)]
    assert list(axes.get_xticks()) == [block + 0.5 for block in range(0, 40, 2)]


def test_shares_end_at_a_hundred() -> None:
    layers = frames.layer_names(2)
    all_found = frames.accuracy_per_layer(layers, [1.0] * len(layers))
    figure = plots.accuracy_of_layers(all_found, frames.parameters(layers))
    assert figure.axes[0].get_xlim()[1] == 100
    assert not figure.axes[0].lines[0].get_clip_on(), "marks at 100 are whole"
    differences = plots.differences_of_layers(frames.layer_differences(layers, 99), all_found)
    assert differences.axes[0].get_ylim()[1] == 100
    one = plots.parameters_of_components(frames.parameters(["w"]))
    assert one.axes[0].get_xlim() == (0, 100)


def test_layers_of_equal_accuracy_have_no_best() -> None:
    layers = frames.layer_names(1)
    tied = frames.accuracy_per_layer(layers, [0.5] * len(layers))
    figure = plots.accuracy_of_layers(tied, frames.parameters(layers))
    assert plots.title_of(figure) == "Single-layer accuracy is 50.0\u00a0% for every layer"


@pytest.mark.parametrize("sized", [True, False])
def test_every_layer_is_a_mark_with_an_interval_at_its_similarity(sized: bool) -> None:
    layers = frames.layer_names(2)
    similar, parameters = frames.similarity_to_full_gradient(layers), frames.parameters(layers, sized=sized)
    (axes,) = plots.layers_against_full_gradient(similar, parameters).axes
    drawn = np.concatenate([y_values(line) for line in axes.lines])
    np.testing.assert_allclose(np.sort(drawn), similar["similarity"])
    ends = np.concatenate([[part[:, 1] for part in segments(lines)] for lines in axes.collections])
    np.testing.assert_allclose(np.sort(ends, axis=0), similar.select("low", "high").to_numpy())
    for line in axes.lines:
        of_component = parameters.filter(pl.col("component") == line.get_label())
        assert len(x_values(line)) == len(of_component)


def sized_layers(numbers: dict[int, int]) -> Figure:
    """So many attention layers and as many MLP layers of each size, by block; from size -> number of blocks."""
    names, sizes = [], []
    for size, n_blocks in numbers.items():
        for block in range(n_blocks):
            names += [f"model.layers.{block}.{part}.of_{size}.weight" for part in ("self_attn.q_proj", "mlp.up_proj")]
            sizes += [size, size]
    parameters = analysis.parameters_per_layer(pl.DataFrame({"layer": names, "parameters": sizes}))
    return plots.layers_against_full_gradient(frames.similarity_to_full_gradient(names), parameters)


def test_every_size_has_its_part_of_the_axis() -> None:
    (axes,) = sized_layers({15: 2, 1: 30, 5: 1}).axes
    assert [label.get_text() for label in axes.get_xticklabels()] == [
        "0.77\u00a0%\n60 layers", "3.8\u00a0%\n2 layers", "12\u00a0%\n4 layers",
    ]  # fmt: skip
    middles = axes.get_xticks()
    width = axes.get_xlim()[1]
    attention, mlp = (x_values(line) for line in axes.lines)
    # Within a size by component and depth, evenly around the middle; the large ones were named first.
    of_small, of_large = (np.concatenate([attention[part], mlp[part]]) for part in (slice(2, 32), slice(2)))
    np.testing.assert_allclose(np.diff(of_small), 1)
    np.testing.assert_allclose(np.diff(of_large), 2 * (width - middles[2]) / 5)
    assert attention[-1] < middles[1] < mlp[-1]
    assert [of_small.mean(), of_large.mean()] == pytest.approx([middles[0], middles[2]])
    # No part is too narrow for its name, and no two layers of neighbouring sizes touch.
    assert min(middles[0], *np.diff(middles), width - middles[-1]) > width / 20
    places = np.sort(np.concatenate([attention, mlp]))
    assert np.diff(places).min() >= 1 - 1e-9


def test_a_part_of_the_axis_has_room_for_its_name() -> None:
    (axes,) = sized_layers({1: 60, **dict.fromkeys(range(2, 9), 1)}).axes
    width = axes.get_xlim()[1]
    assert np.diff(axes.get_xticks()).min() > width / 9 - 1e-9


def test_layers_of_very_many_sizes_stand_at_their_size() -> None:
    figure = sized_layers(dict.fromkeys(range(1, 10), 1))
    (axes,) = figure.axes
    assert axes.get_xscale() == "log"
    for line in axes.lines:
        np.testing.assert_allclose(x_values(line), 100 * np.arange(1, 10) / 90)
    assert axes.get_xlabel() == "share of the model's parameters (%, log scale)"


def test_layers_of_unknown_size_stand_at_their_block() -> None:
    layers = frames.layer_names(3)
    similar = frames.similarity_to_full_gradient(layers)
    figure = plots.layers_against_full_gradient(similar, frames.parameters(layers, sized=False))
    assert plots.title_of(figure) == "lm_head agrees most closely with the full gradient (cosine 0.810)"
    (axes,) = figure.axes
    places = {line.get_label(): list(x_values(line)) for line in axes.lines}
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
    assert [bar.get_width() for bar in figure.axes[0].patches if isinstance(bar, Rectangle)] == [25, 75]
    assert plots.title_of(figure) == "Of 8 parameters: MLP 75.0\u00a0%, embedding 25.0\u00a0%"


def test_unknown_sizes_are_not_drawn() -> None:
    with pytest.raises(TableError, match=r"^parameters_per_layer has no layer sizes; omit its figure$"):
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
            "layer 'model.layers.0.self_attn.k_proj.weight' is not in parameters_per_layer: materialize that table "
            "again"
        )


def test_differences_show_which_places_a_layer_can_have() -> None:
    layers = frames.layer_names(1)  # 8 of them, better and better
    accuracy = frames.accuracy_per_layer(layers)
    figure = plots.differences_of_layers(frames.layer_differences(layers, 3), accuracy)
    assert plots.title_of(figure) == ("lm_head (90.0\u00a0%) is the most accurate, but 3 of 8 layers may be the best")
    accuracies, ranges = figure.axes
    drawn = sorted(tuple(point) for line in accuracies.lines for point in points(line))
    assert drawn == [(place, pytest.approx(share)) for place, share in enumerate(100 * accuracy["accuracy"][::-1], 1)]
    others, best = map(segments, ranges.collections)
    assert [tuple(part[:, 1]) for part in best] == [(0.5, 3.5), (0.5, 4.5), (0.5, 5.5)]
    assert [tuple(part[:, 1]) for part in others] == [(1.5, 6.5), (2.5, 7.5), (3.5, 8.5), (4.5, 8.5), (5.5, 8.5)]
    names = [label.get_text() for label in ranges.get_xticklabels()]
    assert names[0] == "lm_head"
    assert names[-1] == "embed_tokens"


@pytest.mark.parametrize(
    ("apart", "title"),
    [
        (1, "Of 8 layers, lm_head (90.0\u00a0%) is significantly more accurate than all others"),
        (9, "lm_head (90.0\u00a0%) is the most accurate, but 8 of 8 layers may be the best"),
    ],
)
def test_differences_of_all_or_no_layers(apart: int, title: str) -> None:
    layers = frames.layer_names(1)
    figure = plots.differences_of_layers(frames.layer_differences(layers, apart), frames.accuracy_per_layer(layers))
    assert plots.title_of(figure) == title


def test_differences_of_one_layer() -> None:
    table = frames.accuracy_per_layer(["w"], [0.5])
    figure = plots.differences_of_layers(frames.layer_differences(["w"], 1), table)
    assert plots.title_of(figure) == "w (50.0\u00a0%) is the only layer, so there is no comparison"


def test_differences_of_layers_that_are_not_known_are_refused() -> None:
    layers = frames.layer_names(1)
    with pytest.raises(TableError, match=r"is not in accuracy_per_layer: materialize that table again$"):
        plots.differences_of_layers(frames.layer_differences(layers, 1), frames.accuracy_per_layer(layers[:3]))
