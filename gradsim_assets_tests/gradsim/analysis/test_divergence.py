import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradsim import analysis
from gradsim.analysis import LayerDots
from gradsim.analysis.divergence import DIVERGENCE, SIMILARITY_OVER_LAYERS, divergence, similarity_over_layers
from gradsim.analysis.schema import column_types
from gradsim.errors import TableError


@given(data=st.data())
def test_divergence_is_a_cosine_over_a_querys_candidates(draw_study, data) -> None:
    layer_dots = LayerDots.from_tables(*draw_study(data).tables)
    table = divergence(layer_dots)
    assert table.schema == pl.Schema(column_types(DIVERGENCE))

    accuracy = analysis.accuracy_per_layer(layer_dots)["accuracy"].round(9)
    best = accuracy.to_list().index(accuracy.max())
    assert table["layer"].unique().to_list() == [layer_dots.layers[best]]
    expected = []
    for at, query in enumerate(layer_dots.lists.query_ids):
        of_query = layer_dots.lists.query == at
        alone, full = layer_dots.layer_similarities()[of_query, best], layer_dots.similarity()[of_query]
        norms = np.linalg.norm(alone) * np.linalg.norm(full)
        expected.append((round(float(alone @ full / norms), 9) if norms else 0.0, at, query))
    ranked = sorted(expected)
    assert table["query_id"].to_list() == [query for _, _, query in ranked]
    assert table["cosine"].to_list() == [pytest.approx(cosine, abs=1e-8) for cosine, _, _ in ranked]
    assert table["rank"].to_list() == list(range(len(ranked)))


def test_queries_that_diverge_alike_keep_their_order(study) -> None:
    of_one_layer = [table.filter(pl.col("layer") == "layer.1") for table in study.tables]
    table = divergence(LayerDots.from_tables(*of_one_layer))
    assert table["query_id"].to_list() == ["a", "b", "c"]
    assert table["cosine"].to_list() == [pytest.approx(1)] * 3


@given(data=st.data())
def test_similarity_over_layers_is_that_of_each_layer(draw_study, data) -> None:
    layer_dots = LayerDots.from_tables(*draw_study(data).tables)
    names = layer_dots.lists.query_ids.to_list()
    chosen = data.draw(st.lists(st.sampled_from(names), unique=True))
    table = similarity_over_layers(layer_dots, chosen)
    assert table.schema == pl.Schema(column_types(SIMILARITY_OVER_LAYERS))
    layers = layer_dots.layers.to_list()
    expected = [
        (query, original, rank, layer, similarity)
        for name in chosen
        for (query, original, rank), of_pair in zip(
            layer_dots.pairs.iter_rows(), layer_dots.layer_similarities().tolist(), strict=True
        )
        if query == name
        for layer, similarity in zip(layers, of_pair, strict=True)
    ]
    assert table.rows() == expected


@pytest.mark.parametrize(
    ("query_ids", "message"),
    [
        (["a", "unheard of"], "query 'unheard of' is not in dot_products"),
        (["a", "b", "a"], "query 'a' is named twice"),
    ],
)
def test_queries_must_be_known_and_named_once(study, query_ids: list[str], message: str) -> None:
    with pytest.raises(TableError) as error:
        similarity_over_layers(LayerDots.from_tables(*study.tables), query_ids)
    assert str(error.value) == message
