import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from gradsim.analysis import LayerDots, accuracy, accuracy_per_layer, decisions, gradient_similarity
from gradsim.analysis.comparisons import (
    BASELINE_DIFFERENCES,
    LAYER_DIFFERENCES,
    METHOD_DIFFERENCES,
    baseline_differences,
    layer_differences,
    method_differences,
)
from gradsim.analysis.schema import column_types
from gradsim.analysis.statistics import holm
from gradsim.errors import TableError


def projected(similarity: pl.DataFrame, name: str, dimension: int, values: list[float]) -> pl.DataFrame:
    return similarity.with_columns(
        projection=pl.lit(name), dimension=pl.lit(dimension, pl.Int64), similarity=pl.Series(values)
    )


def p_value(first: int, second: int) -> float:
    return binomtest(first, first + second).pvalue if first + second else 1.0


def check(row: dict, first: list[float], second: list[float], others: tuple[str, str]) -> None:
    """A row of either table beside two lists of credit."""
    only = [sum(a > b for a, b in zip(*pair, strict=True)) for pair in ((first, second), (second, first))]
    assert [row[name] for name in others] == only
    assert row["difference"] == pytest.approx(np.mean(first) - np.mean(second), abs=1e-12)
    assert row["p"] == pytest.approx(p_value(*only), rel=1e-9)


@given(data=st.data())
def test_every_pair_of_layers_once(draw_study, data) -> None:
    study = draw_study(data)
    layer_dots = LayerDots.from_tables(*study.tables)
    table = layer_differences(layer_dots)
    assert table.schema == pl.Schema(column_types(LAYER_DIFFERENCES))
    layers = layer_dots.layers.to_list()
    assert table.select("layer", "other_layer").rows() == [
        (layer, other) for at, layer in enumerate(layers) for other in layers[at + 1 :]
    ]
    credit = {
        layer: decisions(layer_dots.pairs.with_columns(similarity=layer_dots.similarity([layer])))["credit"].to_list()
        for layer in layers
    }
    for row in table.iter_rows(named=True):
        check(row, credit[row["layer"]], credit[row["other_layer"]], ("only_layer", "only_other"))
    np.testing.assert_array_equal(table["p_holm"], holm(table["p"].to_numpy()))


@given(data=st.data())
def test_every_layer_against_the_full_gradient(draw_study, data) -> None:
    layer_dots = LayerDots.from_tables(*draw_study(data).tables)
    pairs = layer_dots.pairs
    full = decisions(pairs.with_columns(similarity=layer_dots.similarity()))["credit"].to_list()
    table = accuracy_per_layer(layer_dots)
    for row in table.iter_rows(named=True):
        alone = decisions(pairs.with_columns(similarity=layer_dots.similarity([row["layer"]])))["credit"].to_list()
        check(row | {"difference": np.mean(alone) - np.mean(full)}, alone, full, ("only_layer", "only_full"))
    np.testing.assert_array_equal(table["p_holm"], holm(table["p"].to_numpy()))


@given(data=st.data())
def test_every_pair_of_methods_once(draw_study, data) -> None:
    similarity = gradient_similarity(*draw_study(data).tables)
    values = st.lists(st.integers(-1, 1).map(float), min_size=len(similarity), max_size=len(similarity))
    tables = [projected(similarity, "sjlt", dimension, data.draw(values)) for dimension in (64, 8)]
    # Rows in any order.
    stored = pl.concat(tables).sample(fraction=1, shuffle=True, seed=data.draw(st.integers(0, 99)))
    stored = stored.sort("dimension", descending=True, maintain_order=True)
    table = method_differences(similarity, None, stored, seed=3)
    assert table.schema == pl.Schema(column_types(METHOD_DIFFERENCES))
    assert table.select("method", "other").rows() == [
        ("full_gradient", "sjlt-64"), ("full_gradient", "sjlt-8"), ("full_gradient", "bm25"),
        ("sjlt-64", "sjlt-8"), ("sjlt-64", "bm25"), ("sjlt-8", "bm25"),
    ]  # fmt: skip
    credit = {
        name: decisions(rows)["credit"].to_numpy()
        for name, rows in zip(("full_gradient", "sjlt-64", "sjlt-8"), (similarity, *tables), strict=True)
    }
    credit["bm25"] = (decisions(similarity)["source_rank"] == 0).cast(pl.Float64).to_numpy()
    n = len(credit["bm25"])
    drawn = np.random.default_rng(3).integers(n, size=(1000, n))
    for row in table.iter_rows(named=True):
        first, second = credit[row["method"]], credit[row["other"]]
        check(row, list(first), list(second), ("only_method", "only_other"))
        low, high = np.quantile((first - second)[drawn].mean(axis=1), [0.025, 0.975])
        assert (row["low"], row["high"]) == (pytest.approx(low, abs=1e-12), pytest.approx(high, abs=1e-12))
    np.testing.assert_array_equal(table["p_holm"], holm(table["p"].to_numpy()))
    shares = accuracy(similarity, None, stored).filter(group="all")
    assert shares["accuracy"].to_list() == [pytest.approx(each.mean()) for each in credit.values()]


def test_a_tie_counts_less_than_a_find_and_more_than_none(similarity) -> None:
    table = similarity(a=[("b", 0.5), ("a", 0.5)], b=[("b", 0.1), ("a", 0.1)], c=[("c", 0.9)])
    forced = table.select(
        "query_id", "original_id", forced=(pl.col("query_id") == "c") & (pl.col("original_id") == "c")
    )
    (row,) = method_differences(table, forced, seed=0).iter_rows(named=True)
    # Credit of the full gradient 1/2, 1/2, 1; of BM25 0, 1, and 0, as c was put in by rule.
    assert (row["only_method"], row["only_other"]) == (2, 1)
    assert row["difference"] == pytest.approx(1 / 3)
    assert row["p"] == row["p_holm"] == 1


def test_baselines_by_hand(similarity) -> None:
    table = similarity(
        a=[("b", 0.5), ("a", 0.5), ("c", 0.1)],  # tied: the full gradient has 1/2
        b=[("b", 0.9), ("a", 0.1), ("c", 0.0)],
        c=[("a", 0.2), ("b", 0.1), ("c", 0.8)],
        d=[("d", 0.7), ("a", 0.2), ("b", 0.1)],
    )
    forced = table.select(
        "query_id", "original_id", forced=(pl.col("query_id") == "d") & (pl.col("original_id") == "d")
    )
    originals = pl.DataFrame({"id": ["a", "b", "c", "d"], "length": [10, 12, 30, 7]})
    # a is as far from a as from b; b chooses b; c chooses c; d chooses a.
    queries = pl.DataFrame({"id": ["a", "b", "c", "d"], "length": [11, 12, 29, 10]})
    credit = {
        "full": np.array([0.5, 1, 1, 1]),
        "bm25": np.array([0.0, 1, 0, 0]),  # d was put in by rule
        "answer_length": np.array([0.5, 1, 1, 0]),
    }
    found = baseline_differences(table, forced, originals, queries, seed=5)
    assert found.schema == pl.Schema(column_types(BASELINE_DIFFERENCES))
    assert found["baseline"].to_list() == ["bm25", "answer_length"]
    drawn = np.random.default_rng(5).integers(4, size=(1000, 4))
    for row, only in zip(found.iter_rows(named=True), ((3, 0), (1, 0)), strict=True):
        other = credit[row["baseline"]]
        differences = credit["full"] - other
        assert row["accuracy"] == pytest.approx(other.mean())
        assert row["difference"] == pytest.approx(differences.mean())
        ends = np.quantile(differences[drawn].mean(axis=1), [0.025, 0.975])
        assert (row["low"], row["high"]) == pytest.approx(tuple(ends), abs=1e-12)
        assert (row["only_full"], row["only_baseline"]) == only
        assert row["p"] == pytest.approx(binomtest(only[0], sum(only)).pvalue)
    assert found["p"].to_list() == pytest.approx([0.25, 1])
    assert found["p_holm"].to_list() == pytest.approx([0.5, 1]), "the smaller of two counts twice"


@given(data=st.data())
def test_bm25_as_a_baseline_is_bm25_as_a_method(draw_study, data) -> None:
    similarity = gradient_similarity(*draw_study(data).tables)
    (row,) = baseline_differences(similarity, seed=3).iter_rows(named=True)
    (method,) = method_differences(similarity, seed=3).iter_rows(named=True)
    assert row["baseline"] == method["other"] == "bm25", "without lengths, there is no other"
    named = {"only_method": "only_full", "only_other": "only_baseline"}
    for column in ("difference", "low", "high", "only_method", "only_other", "p"):
        assert row[named.get(column, column)] == pytest.approx(method[column], abs=1e-12), column


def test_one_layer_has_no_other(study) -> None:
    of_one_layer = [table.filter(pl.col("layer") == "layer.1") for table in study.tables]
    layer_dots = LayerDots.from_tables(*of_one_layer)
    table = layer_differences(layer_dots)
    assert table.is_empty()
    assert table.schema == pl.Schema(column_types(LAYER_DIFFERENCES))
    (row,) = accuracy_per_layer(layer_dots).iter_rows(named=True)
    assert (row["only_layer"], row["only_full"], row["p"], row["p_holm"]) == (0, 0, 1, 1)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            lambda table: table.head(3),
            "projected_similarity sjlt-64 does not have the same pairs as gradient_similarity: combine both again",
        ),
        (
            lambda table: pl.concat([table, table.head(1)]),
            "projected_similarity sjlt-64 does not have the same pairs as gradient_similarity: combine both again",
        ),
        (
            lambda table: pl.concat([table.head(3), table.head(1)]),
            "projected_similarity sjlt-64 does not have the same pairs as gradient_similarity: combine both again",
        ),
        (
            lambda table: table.with_columns(pl.lit("unheard of").alias("original_id")),
            "projected_similarity sjlt-64 does not have the same pairs as gradient_similarity: combine both again",
        ),
        (
            lambda table: table.with_columns(similarity=pl.lit(float("nan"))),
            "projected_similarity sjlt-64 has similarity nan for query 'a' and original 'b': "
            "compute that partition again",
        ),
    ],
)
def test_projections_must_have_the_same_pairs(similarity, damage, message: str) -> None:
    table = similarity(a=[("b", 0.1), ("a", 0.9)], b=[("b", 0.8), ("a", 0.4)])
    stored = damage(projected(table, "sjlt", 64, [0.1, 0.2, 0.3, 0.4]))
    with pytest.raises(TableError) as error:
        method_differences(table, None, stored, seed=0)
    assert str(error.value) == message
