import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from gradsim import analysis
from gradsim.analysis import LayerDots
from gradsim.analysis.candidate_lists import CandidateLists
from gradsim.errors import TableError


def credit_by_hand(pairs: pl.DataFrame) -> dict[str, float]:
    credit = {}
    for query in pairs["query_id"].unique(maintain_order=True):
        of_query = pairs.filter(pl.col("query_id") == query)
        best = max(of_query["similarity"])
        winners = of_query.filter(pl.col("similarity") == best)["original_id"].to_list()
        credit[query] = 1 / len(winners) if query in winners else 0.0
    return credit


@given(data=st.data())
def test_a_tie_of_n_counts_one_nth(draw_study, data) -> None:
    similarity = analysis.gradient_similarity(*draw_study(data).tables)
    by_hand = credit_by_hand(similarity)
    decisions = analysis.decisions(similarity)
    assert dict(decisions.select("query_id", "credit").iter_rows()) == by_hand
    full = analysis.accuracy(similarity).row(0, named=True)
    assert full["accuracy"] == pytest.approx(np.mean(list(by_hand.values())), abs=1e-15)
    assert full["low"] <= full["accuracy"] <= full["high"]


@given(data=st.data())
def test_every_layer_is_judged_as_the_full_gradient_would_be(draw_study, data) -> None:
    layer_dots = LayerDots.from_tables(*draw_study(data).tables)
    per_layer = analysis.accuracy_per_layer(layer_dots)
    for at, layer in enumerate(layer_dots.layers):
        alone = layer_dots.pairs.with_columns(similarity=layer_dots.similarity([layer]))
        expected = analysis.accuracy(alone).row(0, named=True)
        row = per_layer.row(at, named=True)
        assert row["layer"] == layer
        assert all(row[name] == expected[name] for name in ("accuracy", "low", "high", "queries", "tied"))


@given(data=st.data())
def test_accuracy_does_not_depend_on_the_order_of_rows(draw_study, data) -> None:
    similarity = analysis.gradient_similarity(*draw_study(data).tables)
    mixed = similarity.sample(fraction=1, shuffle=True, seed=data.draw(st.integers(0, 2**32 - 1)))
    columns = ["method", "accuracy", "tied"]
    expected = analysis.accuracy(similarity).select(columns)
    assert_frame_equal(analysis.accuracy(mixed).select(columns), expected, abs_tol=1e-15)


@given(data=st.data())
def test_a_larger_similarity_of_the_source_never_harms(draw_study, data) -> None:
    similarity = analysis.gradient_similarity(*draw_study(data).tables)
    raised = similarity.with_columns(
        pl.when(pl.col("query_id") == pl.col("original_id"))
        .then(pl.col("similarity") + data.draw(st.floats(0, 1)))
        .otherwise("similarity")
        .alias("similarity")
    )
    before, after = (analysis.decisions(table)["credit"] for table in (similarity, raised))
    assert (after >= before).all()


def test_right_wrong_and_tied(study) -> None:
    similarity = analysis.gradient_similarity(*study.tables)
    full, bm25 = analysis.accuracy(similarity).iter_rows(named=True)
    assert (full["method"], full["group"]) == ("full_gradient", "all")
    assert full["accuracy"] == pytest.approx((1 + 0 + 0.5) / 3)
    assert (full["queries"], full["tied"]) == (3, 1)
    # Only b's own source ranks first.
    assert (bm25["method"], bm25["accuracy"], bm25["tied"]) == ("bm25", pytest.approx(1 / 3), 0)


def candidates(similarity: pl.DataFrame, forced: set[str]) -> pl.DataFrame:
    is_source = pl.col("query_id") == pl.col("original_id")
    return similarity.select(
        "query_id", "original_id", "rank", score=pl.lit(1.0),
        forced=is_source & pl.col("query_id").is_in(forced),
    )  # fmt: skip


def test_forced_queries_stand_apart(similarity) -> None:
    table = similarity(a=[("b", 0.1), ("a", 0.9)], b=[("b", 0.3), ("a", 0.4)], c=[("a", 0.1), ("c", 0.2)])
    rows = analysis.accuracy(table, candidates(table, {"a", "c"}))
    found = {(row["method"], row["group"]): row for row in rows.iter_rows(named=True)}
    shares = {key: (row["accuracy"], row["queries"]) for key, row in found.items()}
    assert shares == {
        ("full_gradient", "all"): (pytest.approx(2 / 3), 3),
        ("full_gradient", "ranked"): (0.0, 1),
        ("full_gradient", "forced"): (1.0, 2),
        ("bm25", "all"): (pytest.approx(1 / 3), 3),
        ("bm25", "ranked"): (1.0, 1),
        ("bm25", "forced"): (0.0, 2),
    }


def test_a_forced_source_that_stands_first_is_not_found_by_bm25(similarity) -> None:
    table = similarity(a=[("a", 0.9)], b=[("b", 0.9)])
    rows = analysis.accuracy(table, candidates(table, {"a"}))
    bm25 = rows.filter(method="bm25", group="all")
    assert bm25["accuracy"].to_list() == [0.5]


def test_unknown_who_was_forced(similarity) -> None:
    table = similarity(a=[("b", 0.1), ("a", 0.9)])
    unknown = candidates(table, set()).with_columns(forced=pl.lit(None, dtype=pl.Boolean))
    rows = analysis.accuracy(table, unknown)
    assert rows["group"].to_list() == ["all", "all"]
    assert analysis.decisions(table, unknown)["forced"].to_list() == [None]
    assert_frame_equal(rows, analysis.accuracy(table))


def test_candidates_must_know_the_query(similarity) -> None:
    table = similarity(a=[("a", 0.9)], b=[("b", 0.9)])
    with pytest.raises(TableError) as error:
        analysis.accuracy(table, candidates(table.head(1), set()))
    assert str(error.value) == "candidates has no row for query 'b' and its true source: compute its candidates again"


def test_each_projection_is_a_method(similarity) -> None:
    table = similarity(a=[("b", 0.1), ("a", 0.9)], b=[("b", 0.8), ("a", 0.4)])
    projected = pl.concat(
        table.with_columns(
            projection=pl.lit("sjlt"), dimension=pl.lit(dimension), similarity=scale * pl.col("similarity")
        )
        for dimension, scale in ((64, -1.0), (128, 0.5))
    )
    rows = analysis.accuracy(table, None, projected)
    assert rows.select("method", "accuracy").rows() == [
        ("full_gradient", 1.0),
        ("sjlt-64", 0.0),
        ("sjlt-128", 1.0),
        ("bm25", 0.5),
    ]
    best = analysis.best_similarity(table, projected, seed=0).filter(candidate="source")
    assert best["method"].to_list() == ["full_gradient", "sjlt-64", "sjlt-128"]
    assert best["mean"].to_list() == pytest.approx([0.85, -0.85, 0.425])


@given(data=st.data())
def test_projections_may_list_the_pairs_in_another_order(draw_study, data) -> None:
    similarity = analysis.gradient_similarity(*draw_study(data).tables)
    projected = similarity.with_columns(projection=pl.lit("sjlt"), dimension=pl.lit(64))
    mixed = projected.sample(fraction=1, shuffle=True, seed=data.draw(st.integers(0, 99)))
    rows = analysis.accuracy(similarity, None, mixed).drop("method").rows()
    assert rows[0] == rows[1]


def test_best_similarity(similarity) -> None:
    table = similarity(a=[("b", 0.7), ("a", 0.9)], b=[("b", 0.3), ("a", 0.4)], c=[("c", -0.5), ("a", -0.6)])
    best, source = analysis.best_similarity(table, seed=0).iter_rows(named=True)
    assert (best["candidate"], source["candidate"]) == ("best", "source")
    assert best["mean"] == pytest.approx((0.9 + 0.4 - 0.5) / 3)
    assert best["median"] == pytest.approx(0.4)
    assert source["mean"] == pytest.approx((0.9 + 0.3 - 0.5) / 3)
    assert source["median"] == pytest.approx(0.3)


@given(data=st.data())
def test_best_similaritys_intervals_are_a_bootstrap_over_queries(draw_study, data) -> None:
    similarity = analysis.gradient_similarity(*draw_study(data).tables)
    by_query = similarity.group_by("query_id", maintain_order=True)
    best = by_query.agg(pl.col("similarity").max())["similarity"].to_numpy()
    source = similarity.filter(pl.col("query_id") == pl.col("original_id"))["similarity"].to_numpy()
    drawn = np.random.default_rng(4).integers(len(best), size=(1000, len(best)))
    rows = analysis.best_similarity(similarity, seed=4).iter_rows(named=True)
    for row, values in zip(rows, (best, source), strict=True):
        for name, statistic in (("mean", np.mean), ("median", np.median)):
            low, high = np.quantile(statistic(values[drawn], axis=1), [0.025, 0.975])
            assert row[name] == pytest.approx(statistic(values), abs=1e-12)
            assert row[f"{name}_low"] == pytest.approx(low, abs=1e-12)
            assert row[f"{name}_high"] == pytest.approx(high, abs=1e-12)


def test_decisions(similarity) -> None:
    table = similarity(
        a=[("b", 0.7), ("a", 0.9)],
        b=[("c", 0.4), ("b", 0.3), ("a", 0.4)],
        c=[("b", 0.5), ("a", 0.1), ("c", 0.5)],
        d=[("d", 0.2)],
    )
    rows = analysis.decisions(table).drop("forced").rows()
    assert rows == [
        ("a", "a", "b", 0.9, 0.7, pytest.approx(0.2), 1.0, 1),
        ("b", "c", "c", 0.3, 0.4, pytest.approx(-0.1), 0.0, 1),
        ("c", "b", "b", 0.5, 0.5, 0.0, 0.5, 2),
        ("d", "d", None, 0.2, None, None, 1.0, 0),
    ]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), None])
def test_similarities_must_be_finite(similarity, value: float | None) -> None:
    table = similarity(a=[("b", 0.7), ("a", value)])
    with pytest.raises(TableError) as error:
        analysis.accuracy(table)
    assert str(error.value) == (
        f"gradient_similarity has similarity {value} for query 'a' and original 'a': compute that partition again"
    )


def test_an_empty_table_is_refused(similarity) -> None:
    with pytest.raises(TableError, match="gradient_similarity has no rows"):
        analysis.accuracy(similarity())


def test_a_candidate_listed_twice_is_refused(similarity) -> None:
    table = similarity(a=[("a", 0.7), ("b", 0.1), ("b", 0.2)])
    with pytest.raises(TableError) as error:
        CandidateLists.from_pairs(table)
    assert str(error.value) == ("original 'b' is listed twice for query 'a': combine the partitions again")
