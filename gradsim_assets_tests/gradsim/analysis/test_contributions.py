"""Contributions of layers to the similarity of whole gradients."""

import numpy as np
import polars as pl
import pytest

from gradsim.analysis import layer_contributions
from gradsim.errors import TableError

LAYERS = ("embed", "attention", "head")
DIMENSION = 4


def tables(scale: float = 1.0) -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame, np.ndarray]:
    """The tables of two queries and three originals, and the cosine of every pair's gradients, in float64."""
    draw = np.random.default_rng(0).standard_normal
    queries, originals = (scale * draw((n, len(LAYERS), DIMENSION)) for n in (2, 3))
    dots = np.einsum("qlk,olk->qol", queries, originals)
    rows = [
        (f"q{q}", f"o{o}", o, layer, dots[q, o, at])
        for q in range(2)
        for o in range(3)
        for at, layer in enumerate(LAYERS)
    ]
    selves = [
        pl.DataFrame(
            [
                (f"{side[0]}{n}", layer, float(gradient[n, at] @ gradient[n, at]))
                for n in range(len(gradient))
                for at, layer in enumerate(LAYERS)
            ],
            schema=[f"{side}_id", "layer", "self_dot"],
            orient="row",
        )
        for side, gradient in (("query", queries), ("original", originals))
    ]
    flat = [each.reshape(len(each), -1) / scale for each in (queries, originals)]
    unit = [each / np.linalg.norm(each, axis=1, keepdims=True) for each in flat]
    frame = pl.DataFrame(rows, schema=["query_id", "original_id", "rank", "layer", "dot"], orient="row")
    return frame, selves[0], selves[1], unit[0] @ unit[1].T


@pytest.mark.parametrize("scale", [1.0, 1e-90, 1e90])
def test_they_sum_to_the_cosine_of_the_whole_gradients(scale: float) -> None:
    """Also where the product of both self dots is no float64."""
    *given, cosines = tables(scale)
    found = layer_contributions(*given)
    sums = found.group_by("query_id", "original_id", maintain_order=True).agg(pl.col("contribution").sum())
    np.testing.assert_allclose(sums["contribution"], cosines.ravel(), rtol=1e-12)
    assert found["layer"].to_list() == given[0]["layer"].to_list()


def test_a_contribution_is_the_layers_dot_over_both_norms() -> None:
    dots, query_self, original_self, _ = tables()
    found = layer_contributions(dots, query_self, original_self).filter(query_id="q1", original_id="o2", layer="head")
    dot = dots.filter(query_id="q1", original_id="o2", layer="head")["dot"].item()
    norms = [
        float(frame.filter(pl.col(column) == name)["self_dot"].sum()) ** 0.5
        for frame, column, name in ((query_self, "query_id", "q1"), (original_self, "original_id", "o2"))
    ]
    assert found["contribution"].item() == pytest.approx(dot / norms[0] / norms[1], rel=1e-14)


def test_a_zero_gradient_contributes_nothing() -> None:
    dots, query_self, original_self, _ = tables()
    zero = query_self.with_columns(self_dot=pl.when(query_id="q0").then(0.0).otherwise("self_dot"))
    dots = dots.with_columns(dot=pl.when(query_id="q0").then(0.0).otherwise("dot"))
    found = layer_contributions(dots, zero, original_self)
    assert set(found.filter(query_id="q0")["contribution"]) == {0.0}
    assert (found.filter(query_id="q1")["contribution"] != 0).all()


def test_a_sample_without_self_dots() -> None:
    dots, query_self, original_self, _ = tables()
    with pytest.raises(TableError, match="original_self has no row for 'o1', which dot_products compares: combine"):
        layer_contributions(dots, query_self, original_self.filter(pl.col("original_id") != "o1"))
