"""Similarity over layers."""

import numpy as np
import pytest
from matplotlib.axes import Axes

from gradsim import plots
from gradsim.errors import TableError
from gradsim_assets_tests.gradsim.plots import frames
from gradsim_assets_tests.gradsim.plots.drawn import line_labelled, points


def line(axes: Axes, label: str) -> np.ndarray:
    return points(line_labelled(axes, label))


def test_a_panel_for_each_place_in_a_block_and_one_for_the_rest() -> None:
    layers = frames.layer_names(3)
    source = np.arange(len(layers)) / 100
    other = np.full(len(layers), 0.085)
    figure = plots.similarity_over_layers(frames.over_layers(layers, {"s1": other, "s0": source}))
    assert plots.title_of(figure) == "The source of s0 is the most similar candidate in 11 of 20 layers"
    panels = {axes.get_title(loc="left"): axes for axes in figure.axes}
    assert list(panels) == [
        "attention q", "attention k", "MLP up", "MLP down", "norm_1", "norm_2", "outside the blocks", "",
    ]  # fmt: skip
    assert not panels[""].get_visible()
    up = panels["MLP up"]
    np.testing.assert_allclose(line(up, "s0, the source"), [(0, 0.03), (1, 0.09), (2, 0.15)])
    np.testing.assert_allclose(line(up, "most similar candidate"), [(1, 0.09), (2, 0.15)])
    np.testing.assert_allclose(line(up, "s1")[:, 1], 0.085)
    outside = panels["outside the blocks"]
    assert [label.get_text() for label in outside.get_xticklabels()] == ["embed_tokens", "lm_head"]
    np.testing.assert_allclose(line(outside, "s0, the source")[:, 1], source[[0, -1]])
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == ["s0, the source", "most similar candidate", "s1"]


def test_a_tie_does_not_find_the_source() -> None:
    layers = frames.layer_names(2)
    table = frames.over_layers(layers, {"s0": [0.5] * len(layers), "s1": [0.5] * len(layers)})
    assert "in 0 of 14 layers" in plots.title_of(plots.similarity_over_layers(table))


def test_many_candidates_are_a_range_and_the_most_similar_one() -> None:
    layers = frames.layer_names(2)
    others = {f"s{number}": [number / 100] * len(layers) for number in range(1, 31)}
    figure = plots.similarity_over_layers(frames.over_layers(layers, {"s0": [0.9] * len(layers), **others}))
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == ["s0, the source", "most similar candidate", "range of 30 others", "s30, most similar on average"]


def test_layers_without_blocks_share_one_panel() -> None:
    layers = ["w1", "w2", "w3"]
    table = frames.over_layers(layers, {"s0": [0.1, 0.2, 0.3], "s1": [0.2, 0.1, 0.1]})
    (axes,) = plots.similarity_over_layers(table).axes
    assert [label.get_text() for label in axes.get_xticklabels()] == layers
    np.testing.assert_allclose(line(axes, "most similar candidate"), [(1, 0.2), (2, 0.3)])


def test_too_many_kinds_of_layers_share_one_panel() -> None:
    layers = frames.layer_names(2, [f"mlp.experts.{expert}.w1" for expert in range(20)])
    table = frames.over_layers(layers, {"s0": [0.1] * len(layers)})
    (axes,) = plots.similarity_over_layers(table).axes
    assert len(line(axes, "s0, the source")) == 42


def test_the_only_candidate_is_the_most_similar_one() -> None:
    figure = plots.similarity_over_layers(frames.over_layers(["w"], {"s0": [-0.1]}))
    assert plots.title_of(figure) == "The source of s0 is the most similar candidate in 1 of 1 layers"


def test_what_is_not_one_query_with_its_source_is_refused() -> None:
    one = frames.over_layers(["w"], {"s0": [0.1]})
    for table, message in (
        (one.clear(), "similarity_over_layers has no rows: no query was chosen; omit its figure"),
        (one.vstack(frames.over_layers(["w"], {"s1": [0.1]}, "s1")), "similarity_over_layers has several queries"),
        (frames.over_layers(["w"], {"s1": [0.1]}), "similarity_over_layers lacks the source of query 's0'"),
    ):
        with pytest.raises(TableError) as error:
            plots.similarity_over_layers(table)
        assert str(error.value).startswith(message)
