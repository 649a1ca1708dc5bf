from collections.abc import Callable

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from gradsim.analysis import LayerDots, gradient_similarity
from gradsim.errors import TableError


def cosine(left: np.ndarray, right: np.ndarray) -> float:
    norms = np.linalg.norm(left) * np.linalg.norm(right)
    return float(left.ravel() @ right.ravel() / norms) if norms else 0.0


@given(data=st.data())
def test_similarity_of_any_layers_is_the_cosine_of_their_gradients(draw_study, data) -> None:
    study = draw_study(data)
    layer_dots = LayerDots.from_tables(*study.tables)
    chosen = sorted(data.draw(st.sets(st.integers(0, len(layer_dots.layers) - 1), min_size=1)))
    expected = [
        cosine(study.queries[query][chosen], study.originals[original][chosen])
        for query, original, _ in layer_dots.pairs.iter_rows()
    ]
    names = [layer_dots.layers[at] for at in chosen]
    np.testing.assert_allclose(layer_dots.similarity(names), expected, atol=1e-12)
    if len(chosen) == 1:
        of_layer = layer_dots.layer_similarities()[:, chosen[0]]
        np.testing.assert_array_equal(of_layer, layer_dots.similarity(names))


@given(data=st.data())
def test_order_of_rows_changes_no_number(draw_study, data) -> None:
    tables = draw_study(data).tables
    seed = data.draw(st.integers(0, 2**32 - 1))
    shuffled = [table.sample(fraction=1, shuffle=True, seed=seed) for table in tables]
    # Queries then appear in another order, and so might layers: name them.
    layers = pl.Enum(tables[0]["layer"].unique(maintain_order=True))
    mixed, straight = (
        gradient_similarity(*(table.cast({"layer": layers}) for table in version)) for version in (shuffled, tables)
    )
    assert_frame_equal(mixed.sort("query_id", "rank"), straight.sort("query_id", "rank"), check_exact=True)


def test_enums_and_strings_give_the_same(study) -> None:
    layers = pl.Enum(study.dot_products["layer"].unique(maintain_order=True))
    ids = pl.Enum(["unused", "c", "b", "a"])
    encoded = gradient_similarity(
        study.dot_products.cast({"query_id": ids, "original_id": ids, "layer": layers}),
        study.query_self.cast({"query_id": ids, "layer": layers}),
        study.original_self.cast({"original_id": ids, "layer": layers}),
    )
    assert encoded.schema["query_id"] == encoded.schema["original_id"] == ids
    plain = gradient_similarity(*study.tables)
    assert_frame_equal(encoded.cast({"query_id": pl.String, "original_id": pl.String}), plain)


def test_layers_are_in_the_order_of_the_enum(study) -> None:
    order = ["layer.1", "layer.2", "absent"]
    tables = [table.cast({"layer": pl.Enum(order)}) for table in study.tables]
    assert LayerDots.from_tables(*tables).layers.to_list() == ["layer.1", "layer.2"]
    assert LayerDots.from_tables(*study.tables).layers.to_list() == ["layer.2", "layer.1"]


def test_pairs_are_by_first_appearance_of_the_query_then_rank(study) -> None:
    pairs = gradient_similarity(study.dot_products[::-1], study.query_self, study.original_self)
    assert pairs["query_id"].to_list() == ["c", "c", "c", "b", "b", "b", "a", "a"]
    assert pairs["original_id"].to_list() == ["b", "a", "c", "b", "a", "c", "b", "a"]
    assert pairs["rank"].to_list() == [0, 1, 2, 0, 1, 2, 0, 1]


def test_a_zero_gradient_is_similar_to_nothing(study) -> None:
    silent = pl.col("query_id") == "c"
    layer_dots = LayerDots.from_tables(
        study.dot_products.with_columns(dot=pl.when(silent).then(0.0).otherwise("dot")),
        study.query_self.with_columns(self_dot=pl.when(silent).then(0.0).otherwise("self_dot")),
        study.original_self,
    )
    of_silent = (layer_dots.pairs["query_id"] == "c").to_numpy()
    assert (layer_dots.similarity()[of_silent] == 0).all()
    assert (layer_dots.layer_similarities()[of_silent] == 0).all()


def test_tiny_gradients_do_not_underflow() -> None:
    tables = (
        pl.DataFrame({"query_id": ["a"], "original_id": ["a"], "rank": [0], "layer": ["w"], "dot": [1e-200]}),
        pl.DataFrame({"query_id": ["a"], "layer": ["w"], "self_dot": [1e-200]}),
        pl.DataFrame({"original_id": ["a"], "layer": ["w"], "self_dot": [1e-200]}),
    )
    assert gradient_similarity(*tables)["similarity"].to_list() == [pytest.approx(1)]


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        (["layer.1", "head"], "layer 'head' is not in dot_products"),
        (["layer.1", "layer.1"], "layer 'layer.1' is named twice"),
        ([], "no layer is named: name at least one, or pass None for the whole gradient"),
    ],
)
def test_similarity_refuses_layers(study, layers: list[str], message: str) -> None:
    with pytest.raises(TableError) as error:
        LayerDots.from_tables(*study.tables).similarity(layers)
    assert str(error.value) == message


def without(where: pl.Expr) -> Callable[[pl.DataFrame], pl.DataFrame]:
    return lambda table: table.filter(~where)


def changed(where: pl.Expr, column: str, value: float | None) -> Callable[[pl.DataFrame], pl.DataFrame]:
    return lambda table: table.with_columns(pl.when(where).then(value).otherwise(column).alias(column))


FIRST_PAIR = (pl.col("query_id") == "a") & (pl.col("original_id") == "b")
LAYER = pl.col("layer") == "layer.1"


@pytest.mark.parametrize(
    ("table", "damage", "message"),
    [
        (0, lambda table: table.drop("rank"),
         "dot_products has no column 'rank'; it has query_id, original_id, layer, dot"),
        (0, lambda table: table.clear(),
         "dot_products has no rows: compute at least one partition"),
        (0, changed(FIRST_PAIR & LAYER, "dot", float("nan")),
         "dot_products has dot nan at query_id 'a', original_id 'b', rank 0, layer 'layer.1': "
         "compute that partition again"),
        (0, changed(FIRST_PAIR & LAYER, "dot", None),
         "dot_products has dot None at query_id 'a', original_id 'b', rank 0, layer 'layer.1': "
         "compute that partition again"),
        (1, changed((pl.col("query_id") == "b") & LAYER, "self_dot", float("inf")),
         "query_self has self_dot inf at query_id 'b', layer 'layer.1': compute that partition again"),
        (2, changed((pl.col("original_id") == "b") & LAYER, "self_dot", -1.0),
         "original_self has self_dot -1.0 at original_id 'b', layer 'layer.1': "
         "compute that partition again"),
        (0, without(FIRST_PAIR & LAYER),
         "dot_products lacks layer 'layer.1' of query 'a' and original 'b': combine the partitions again"),
        (1, without((pl.col("query_id") == "b") & LAYER),
         "query_self lacks layer 'layer.1' of query 'b': combine the partitions again"),
        (2, without((pl.col("original_id") == "c") & LAYER),
         "original_self lacks layer 'layer.1' of original 'c': combine the partitions again"),
        (0, without(LAYER), "query_self has layer 'layer.1', which dot_products lacks: combine both again"),
        (1, without(LAYER), "query_self lacks layer 'layer.1' of query 'a': combine the partitions again"),
        (1, without(pl.col("query_id") == "b"),
         "query_self has no row for query 'b', which dot_products compares: combine both again"),
        (2, without(pl.col("original_id") == "c"),
         "original_self has no row for original 'c', which dot_products compares: combine both again"),
        (0, without(pl.col("query_id") == "b"),
         "query_self has query 'b', but dot_products has no pair for it: combine the partitions again"),
        (0, lambda table: table.vstack(table[3:4]),
         "dot_products has layer 'layer.1' of query 'a' and original 'a' twice: "
         "combine the partitions again"),
        (2, lambda table: table.vstack(table[1:2]),
         "original_self has layer 'layer.1' of original 'a' twice: combine the partitions again"),
        (0, changed(FIRST_PAIR & LAYER, "rank", 1),
         "dot_products gives query 'a' and original 'b' two ranks: combine the partitions again"),
        (0, without((pl.col("query_id") == "a") & (pl.col("original_id") == "a")),
         "the candidates of query 'a' lack its true source: compute its candidates again"),
    ],
)  # fmt: skip
def test_damaged_tables_are_refused_by_name(study, table: int, damage, message: str) -> None:
    tables = list(study.tables)
    tables[table] = damage(tables[table])
    with pytest.raises(TableError) as error:
        LayerDots.from_tables(*tables)
    assert str(error.value) == message


def marked(study, layer: str, queries: int, originals: int) -> tuple[pl.DataFrame, ...]:
    """The study's tables; the layer is marked as noise in so many rows of either self table."""
    dots, *selves = study.tables
    for at, number in enumerate((queries, originals)):
        first = pl.int_range(pl.len()).over("layer") < number
        selves[at] = selves[at].with_columns(noise=(pl.col("layer") == layer) & first)
    return (dots, *selves)


@pytest.mark.parametrize(
    ("queries", "originals", "left_out"), [(0, 0, False), (3, 0, False), (3, 1, True), (0, 4, True)]
)
def test_a_layer_marked_in_half_of_the_rows_is_left_out(study, queries: int, originals: int, left_out: bool) -> None:
    """Three queries and four originals."""
    layer_dots = LayerDots.from_tables(*marked(study, "layer.2", queries, originals))
    assert layer_dots.layers.to_list() == (["layer.1"] if left_out else ["layer.2", "layer.1"])
    assert layer_dots.noise.to_list() == (["layer.2"] if left_out else [])
    assert sorted(layer_dots.every_layer) == ["layer.1", "layer.2"]


def test_whole_gradients_keep_the_layers_that_are_left_out(study) -> None:
    every = LayerDots.from_tables(*study.tables)
    left_out = LayerDots.from_tables(*marked(study, "layer.2", 3, 4))
    np.testing.assert_array_equal(left_out.similarity(), every.similarity())
    np.testing.assert_array_equal(left_out.layer_similarities()[:, 0], every.layer_similarities()[:, 1])
    queries = np.array([0, 2])
    pair = every.lists.pairs_of(queries)
    np.testing.assert_array_equal(left_out.of_queries(queries).similarity(), every.similarity()[pair])
    with pytest.raises(TableError, match=r"^layer 'layer\.2' holds only rounding error in this setting: leave it out$"):
        left_out.similarity(["layer.2"])


def test_unknown_marks_leave_nothing_out(study) -> None:
    dots, *selves = study.tables
    unknown = [table.with_columns(noise=pl.lit(None, pl.Boolean)) for table in selves]
    assert LayerDots.from_tables(dots, *unknown).noise.is_empty()


def test_a_model_that_is_all_rounding(study) -> None:
    dots, *selves = study.tables
    with pytest.raises(TableError, match=r"^every layer holds only rounding error"):
        LayerDots.from_tables(dots, *(table.with_columns(noise=pl.lit(True)) for table in selves))
