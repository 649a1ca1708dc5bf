"""Figures of methods and queries: accuracy, controls, similarities, the audit."""

from itertools import pairwise

import numpy as np
import polars as pl
import pytest
from matplotlib.text import Annotation, Text

from gradsim import analysis, plots
from gradsim.errors import TableError
from gradsim_assets_tests.gradsim.plots import frames
from gradsim_assets_tests.gradsim.plots.drawn import segments, x_values, y_values


def test_accuracy_title_states_what_is_found() -> None:
    pairs = frames.pairs(n_queries=4, lift=9.0)
    tables = analysis.accuracy(pairs), analysis.controls(pairs)
    one = plots.accuracy_of_methods({"paraphrased": tables[0]}, {"paraphrased": tables[1]})
    assert plots.title_of(one) == (
        "The full gradient finds the source of 100.0\u00a0% of paraphrased queries; BM25 finds 100.0\u00a0%"
    )
    lost = frames.pairs(n_queries=4, lift=-9.0)
    both = plots.accuracy_of_methods(
        {"paraphrased": tables[0], "model_generated": analysis.accuracy(lost)},
        {"paraphrased": tables[1], "model_generated": analysis.controls(lost)},
    )
    assert plots.title_of(both) == (
        "The full gradient finds the source of 100.0\u00a0% of paraphrased and 0.0\u00a0% of "
        "model-generated queries; BM25 finds 100.0\u00a0%"
    )
    assert len(both.axes) == 2


def test_accuracy_draws_methods_controls_and_chance() -> None:
    pairs = frames.pairs()
    accuracy, controls = analysis.accuracy(pairs), analysis.controls(pairs)
    (panel,) = plots.accuracy_of_methods({"p": accuracy}, {"p": controls}).axes
    rows = [*accuracy.iter_rows(named=True), *controls.iter_rows(named=True)]
    drawn = [x_values(line) for line in panel.lines]
    chance = rows.pop()
    assert list(drawn.pop()) == [100 * chance["accuracy"]] * 2
    for row, interval, point in zip(rows, drawn[::2], drawn[1::2], strict=True):
        assert list(interval) == [100 * row["low"], 100 * row["high"]]
        assert list(point) == [100 * row["accuracy"]]
    labels = [label.get_text() for label in panel.get_yticklabels()]
    assert labels == ["full gradient", "BM25", "shuffled sources", "BM25 rank only"]


def test_similarity_title_counts_ties_apart() -> None:
    decisions = pl.DataFrame(
        {
            "source_similarity": [0.5, 0.1, 0.2],
            "best_other_similarity": [0.4, 0.3, 0.2],
            "credit": [1.0, 0.0, 0.5],
        }
    )
    assert plots.title_of(plots.source_against_others(decisions)) == (
        "The true source is the most similar candidate for 1 of 3 queries and ties with others for 1"
    )


def test_one_query_with_one_candidate() -> None:
    pairs = frames.pairs(n_queries=1, n_candidates=1)
    methods = plots.accuracy_of_methods({"p": analysis.accuracy(pairs)}, {"p": analysis.controls(pairs)})
    queries = plots.source_against_others(analysis.decisions(pairs))
    for figure in (methods, queries):
        assert plots.to_svg(figure, "x").startswith("<svg")


def test_the_audit_shows_every_error_beside_the_tolerance() -> None:
    layers = frames.layer_names(2)
    figure = plots.errors_of_audit(frames.audit(layers, at_0=0.0, at_1=1e-9), "float32")
    assert plots.title_of(figure) == "28 values agree with plain autograd to within 10⁻⁸"
    (axes,) = figure.axes
    dots, self_dots, tolerance = axes.lines
    assert list(x_values(dots)) == list(x_values(self_dots)) == [1e-16, 1e-9, *[1e-8] * 12]
    assert list(x_values(tolerance)) == [1e-5] * 2
    names = [label.get_text() for label in axes.get_yticklabels()]
    assert names == ["embedding", "attention q", "attention k", "MLP up", "MLP down", "norm", "head"]
    rows = [names[round(-place)] for place in y_values(dots)]
    assert rows == [analysis.component_of(layer) for layer in layers]


def test_an_audit_that_fails_says_so() -> None:
    wrong = frames.audit(frames.layer_names(1), at_0=float("nan"), at_1=float("inf"), at_2=1e-3)
    figure = plots.errors_of_audit(wrong, "float32")
    assert plots.title_of(figure) == "6 of 16 values differ from plain autograd"
    assert len(x_values(figure.axes[0].lines[0])) == 6, "what is not finite has no place"


def test_recall_has_a_line_and_intervals_a_method() -> None:
    recall = {
        "full_gradient": {1: 0.6, 2: 0.8, 3: 0.9},
        "sjlt-12000000": {1: 0.5, 2: 0.7, 3: 0.8},
        "bm25": {1: 0.4, 2: 0.45, 3: 0.5},
    }
    figure = plots.recall_at_k(frames.retrieval(recall))
    assert plots.title_of(figure) == ("Recall at 3 is 90.0\u00a0% for the full gradient and 50.0\u00a0% for BM25")
    (axes,) = figure.axes
    for method, line, interval in zip(recall, axes.lines[::2], axes.collections, strict=True):
        shares = [100 * share for share in recall[method].values()]
        assert list(y_values(line)) == pytest.approx(shares)
        ends = [tuple(segment[:, 1]) for segment in segments(interval)]
        assert ends == [pytest.approx((share - 4, share + 3)) for share in shares]
        # Methods stand side by side at each k.
        assert [round(place) for place in x_values(line)] == [0, 1, 2]
    assert len({x_values(line)[0] for line in axes.lines}) == len(recall)
    assert [label.get_text() for label in axes.get_xticklabels()] == ["1", "2", "3"]
    assert [text.get_text() for text in axes.texts] == [
        "full gradient\nMRR 0.625",
        "sjlt, 12\u00a0M\nMRR 0.625",
        "BM25\nMRR 0.625",
    ]


def test_labels_of_equal_methods_do_not_overlap() -> None:
    methods = ["full_gradient", *(f"sjlt-{size}" for size in range(10, 20)), "bm25"]
    figure = plots.recall_at_k(frames.retrieval({method: {1: 0.9} for method in methods}))
    plots.to_png(figure)  # lays it out
    extents = (Text.get_window_extent(text) for text in figure.axes[0].texts)
    boxes = sorted((extent.y0, extent.y1) for extent in extents)
    assert len(boxes) == 12
    assert all(below[1] <= above[0] + 1 for below, above in pairwise(boxes))


def test_recall_ends_at_a_hundred_and_its_labels_beside_it() -> None:
    methods = ["full_gradient", *(f"sjlt-{size}" for size in range(10, 20)), "bm25"]
    figure = plots.recall_at_k(frames.retrieval({method: {1: 0.97, 2: 1.0} for method in methods}))
    figure.draw_without_rendering()  # lays it out
    (axes,) = figure.axes
    assert axes.get_ylim()[1] == 100
    assert max(axes.get_yticks()) <= 100
    frame = axes.get_window_extent()
    for text in axes.texts:
        box = Text.get_window_extent(text)
        assert frame.y0 - 1 <= box.y0
        assert box.y1 <= frame.y1 + 1


def test_no_leader_of_recall_runs_through_a_label() -> None:
    methods = ["full_gradient", *(f"sjlt-{size}" for size in range(10, 14)), "bm25"]
    figure = plots.recall_at_k(frames.retrieval({method: {1: 0.9, 2: 0.97} for method in methods}))
    figure.set_size_inches(3.5, 3.4)
    figure.draw_without_rendering()  # lays it out
    texts = figure.axes[0].texts
    left = min(Text.get_window_extent(text).x0 for text in texts)
    for text in texts:
        assert isinstance(text, Annotation)
        leader = text.arrow_patch
        assert leader
        path = leader.get_transform().transform_path(leader.get_path())
        assert np.asarray(path.vertices)[:, 0].max() <= left


def test_recall_of_the_first_candidate_only() -> None:
    title = plots.title_of(plots.recall_at_k(frames.retrieval({"full_gradient": {1: 0.5}, "bm25": {1: 0.25}})))
    assert title == ("Recall at 1 is 50.0\u00a0% for the full gradient and 25.0\u00a0% for BM25")


def test_retrieval_without_rows_is_refused() -> None:
    with pytest.raises(TableError, match=r"^retrieval has no rows: no query was compared; omit its figure$"):
        plots.recall_at_k(frames.retrieval({}))
