import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradsim.analysis import LayerDots, accuracy_per_layer, evaluation
from gradsim.analysis.evaluation import Evaluation, evaluate_layers, in_parts


@given(data=st.data())
def test_parts_change_no_number(draw_study, data) -> None:
    layer_dots = LayerDots.from_tables(*draw_study(data).tables)
    whole = Evaluation.of(layer_dots.lists, layer_dots.layer_similarities(), layer_dots.similarity())
    expected = accuracy_per_layer(layer_dots)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluation, "_DOTS_AT_ONCE", data.draw(st.integers(1, 40)))
        parts = [queries for queries, _ in in_parts(layer_dots)]
        found = evaluate_layers(layer_dots)
        assert accuracy_per_layer(layer_dots).equals(expected)
    assert np.concatenate(parts).tolist() == list(range(len(layer_dots.lists.lengths)))
    for name in ("credit", "with_full", "squares", "full_squares"):
        np.testing.assert_allclose(getattr(found, name), getattr(whole, name), rtol=0, atol=1e-12)


def test_parts_are_small(study) -> None:
    layer_dots = LayerDots.from_tables(*study.tables)
    with pytest.MonkeyPatch.context() as patch:
        # Lists of 2, 3 and 3 candidates in 2 layers.
        patch.setattr(evaluation, "_DOTS_AT_ONCE", 12)
        sizes = [part.dots.size for _, part in in_parts(layer_dots)]
    assert sizes == [10, 6]


def test_one_query(study) -> None:
    of_one = [
        table.filter(pl.col("query_id") == "a") if "query_id" in table.columns else table for table in study.tables
    ]
    evaluation = evaluate_layers(LayerDots.from_tables(*of_one))
    assert evaluation.accuracy.tolist() == [1, 1]
