"""Recall and reciprocal rank beside an enumeration of every order in which tied candidates may stand."""

from itertools import permutations

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradsim.analysis import accuracy, gradient_similarity
from gradsim.analysis.metrics import RETRIEVAL, retrieval_metrics
from gradsim.analysis.schema import column_types
from gradsim.analysis.statistics import Bootstrap, wilson_interval


def places(scores: list[float], source: int) -> list[int]:
    """Of the source, 1 for the nearest, in every order that is sorted by score."""
    orders = (
        order
        for order in permutations(range(len(scores)))
        if sorted(scores, reverse=True) == [scores[at] for at in order]
    )
    return [order.index(source) + 1 for order in orders]


def by_hand(similarity: pl.DataFrame) -> tuple[list[list[int]], int]:
    """Possible places of every query's source, and the longest list's length."""
    found = []
    for query in similarity["query_id"].unique(maintain_order=True):
        rows = similarity.filter(pl.col("query_id") == query)
        found.append(places(rows["similarity"].to_list(), rows["original_id"].to_list().index(query)))
    return found, max(similarity["query_id"].value_counts()["count"])


def values(table: pl.DataFrame, method: str, group: str = "all") -> dict[int | None, float]:
    return dict(table.filter(method=method, group=group).select("k", "value").iter_rows())


@given(data=st.data())
def test_ties_are_expectations_over_random_order(draw_study, data) -> None:
    similarity = gradient_similarity(*draw_study(data).tables)
    table = retrieval_metrics(similarity, seed=0)
    assert table.schema == pl.Schema(column_types(RETRIEVAL))
    possible, longest = by_hand(similarity)
    found = values(table, "full_gradient")
    assert list(found) == [k for k in (1, 2, 3) if k == 1 or k < longest] + [None]
    for k, value in found.items():
        if k is None:
            expected = np.mean([np.mean([1 / place for place in each]) for each in possible])
        else:
            expected = np.mean([np.mean([place <= k for place in each]) for each in possible])
        assert value == pytest.approx(expected, abs=1e-12)
    assert (table["low"] <= table["value"] + 1e-12).all()
    assert (table["value"] <= table["high"] + 1e-12).all()


@given(data=st.data())
def test_bm25_is_the_order_of_rank(draw_study, data) -> None:
    similarity = gradient_similarity(*draw_study(data).tables)
    rank = similarity.filter(pl.col("query_id") == pl.col("original_id"))["rank"].to_numpy()
    found = values(retrieval_metrics(similarity, seed=0), "bm25")
    assert found.pop(None) == pytest.approx(np.mean(1 / (rank + 1)))
    assert found == {k: pytest.approx(np.mean(rank < k)) for k in found}


def candidates(similarity: pl.DataFrame, forced: set[str]) -> pl.DataFrame:
    is_source = pl.col("query_id") == pl.col("original_id")
    return similarity.select(
        "query_id", "original_id", "rank", score=pl.lit(1.0),
        forced=is_source & pl.col("query_id").is_in(forced),
    )  # fmt: skip


def test_bm25_does_not_find_what_was_forced(similarity) -> None:
    table = similarity(
        a=[("a", 0.9), ("b", 0.1), ("c", 0.2)],
        b=[("a", 0.3), ("c", 0.4), ("b", 0.2)],
        c=[("a", 0.5), ("c", 0.4), ("b", 0.1)],
    )
    rows = retrieval_metrics(table, candidates(table, {"a", "b"}), seed=0)
    assert rows["method"].unique(maintain_order=True).to_list() == ["full_gradient", "bm25"]
    assert rows["group"].unique(maintain_order=True).to_list() == ["all", "ranked", "forced"]
    assert values(rows, "bm25") == {1: 0.0, 2: pytest.approx(1 / 3), None: pytest.approx(1 / 6)}
    assert values(rows, "bm25", "forced") == {1: 0.0, 2: 0.0, None: 0.0}
    assert values(rows, "full_gradient", "forced") == {1: 0.5, 2: 0.5, None: pytest.approx((1 + 1 / 3) / 2)}
    assert dict(rows.select("group", "queries").unique().iter_rows()) == {"all": 3, "ranked": 1, "forced": 2}


def test_where_it_is_unknown_who_was_forced_the_place_counts(similarity) -> None:
    table = similarity(a=[("b", 0.1), ("a", 0.9)])
    unknown = candidates(table, set()).with_columns(forced=pl.lit(None, pl.Boolean))
    rows = retrieval_metrics(table, unknown, seed=0)
    assert rows["group"].unique().to_list() == ["all"]
    assert values(rows, "bm25") == {1: 0.0, None: 0.5}


@pytest.mark.parametrize(
    ("length", "depths"),
    [
        (1, [1]),
        (2, [1]),
        (5, [1, 2, 3]),
        (6, [1, 2, 3, 5]),
        (10, [1, 2, 3, 5]),
        (101, [1, 2, 3, 5, 10, 20, 50, 100]),
        (700, [1, 2, 3, 5, 10, 20, 50, 100, 200, 500]),
    ],
)
def test_recall_is_asked_below_the_longest_lists_length(similarity, length: int, depths: list[int]) -> None:
    names = [f"s{number}" for number in range(length)]
    table = similarity(s0=[(name, -float(at)) for at, name in enumerate(names)], s1=[("s1", 0.5)])
    found = values(retrieval_metrics(table, seed=0), "full_gradient")
    assert found == dict.fromkeys([*depths, None], 1.0)


def test_a_whole_corpus_of_ties_is_found_by_chance(similarity) -> None:
    names = [f"s{number}" for number in range(100)]
    table = similarity(s0=[(name, 0.0) for name in names])
    found = values(retrieval_metrics(table, seed=0), "full_gradient")
    assert found.pop(None) == pytest.approx(np.mean(1 / np.arange(1, 101)))
    assert found == {k: pytest.approx(k / 100) for k in found if k is not None}


def test_intervals(similarity) -> None:
    random = np.random.default_rng(5)
    names = [f"s{number:02d}" for number in range(40)]
    table = similarity(
        **{
            name: [(names[(at + step) % 40], float(score)) for step, score in enumerate(random.random(4))]
            for at, name in enumerate(names)
        }
    )
    rows = retrieval_metrics(table, seed=7).filter(method="full_gradient")
    for row in rows.filter(metric="recall").iter_rows(named=True):
        assert (row["low"], row["high"]) == wilson_interval(row["value"] * 40, 40)
    possible, _ = by_hand(table)
    low, high = Bootstrap(40, seed=7).mean_interval(np.array([1 / place for (place,) in possible]))
    (mean,) = rows.filter(metric="mean_reciprocal_rank").iter_rows(named=True)
    assert (mean["low"], mean["high"]) == (pytest.approx(low), pytest.approx(high))


def test_recall_at_one_is_accuracy(study) -> None:
    similarity = gradient_similarity(*study.tables)
    rows = retrieval_metrics(similarity, seed=0).filter(k=1)
    assert rows.select("method", "group", "value", "low", "high").rows() == [
        row[:5] for row in accuracy(similarity).rows()
    ]
