import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from gradsim import analysis
from gradsim.errors import TableError


def lengths(**of: int) -> pl.DataFrame:
    return pl.DataFrame({"id": list(of), "length": list(of.values())})


def test_controls_by_hand(similarity) -> None:
    table = similarity(
        a=[("a", 0.1), ("b", 0.2), ("c", 0.3), ("d", 0.4)],
        b=[("c", 0.1), ("b", 0.9)],
    )
    rows = analysis.controls(table, lengths(a=10, b=20, c=30, d=2), lengths(a=6, b=22))
    found = {row["control"]: row for row in rows.iter_rows(named=True)}
    assert list(found) == ["sources_shuffled", "bm25_rank", "answer_length", "chance"]
    assert found["bm25_rank"]["accuracy"] == 0.5
    # For a, whose answer has 6, the candidates of 10 and 2 are equally near.
    assert found["answer_length"]["accuracy"] == pytest.approx((0.5 + 1) / 2)
    assert found["answer_length"]["tied"] == 1
    assert found["chance"]["accuracy"] == pytest.approx((1 / 4 + 1 / 2) / 2)
    assert (found["chance"]["low"], found["chance"]["high"]) == (None, None)
    assert all(row["queries"] == 2 for row in found.values())


def test_lengths_may_be_unknown(similarity) -> None:
    rows = analysis.controls(similarity(a=[("a", 0.1), ("b", 0.2)]))
    assert rows["control"].to_list() == ["sources_shuffled", "bm25_rank", "chance"]


def test_a_missing_length_is_named(similarity) -> None:
    table = similarity(a=[("a", 0.1), ("b", 0.2)])
    with pytest.raises(TableError) as error:
        analysis.controls(table, lengths(a=1), lengths(a=1))
    assert str(error.value) == "no answer length for original 'b': pass lengths for all samples, or for none"


def test_shuffled_sources_are_found_by_chance(similarity) -> None:
    names = [f"s{number}" for number in range(200)]
    # Every query finds its source without fail, among 2 to 5 candidates.
    table = similarity(
        **{
            name: [(names[(at + step) % 200], 1.0 if step == 0 else 0.0) for step in range(2 + at % 4)]
            for at, name in enumerate(names)
        }
    )
    rows = {row["control"]: row for row in analysis.controls(table).iter_rows(named=True)}
    shuffled, chance = rows["sources_shuffled"], rows["chance"]["accuracy"]
    # A thousand shuffles of 200 queries: the mean strays by 0.001.
    assert shuffled["accuracy"] == pytest.approx(chance, abs=0.005)
    assert shuffled["low"] < chance < shuffled["high"]
    single = np.sqrt(np.mean([1 / n * (1 - 1 / n) for n in (2, 3, 4, 5)]) / 200)
    assert shuffled["high"] - shuffled["low"] == pytest.approx(2 * 1.96 * single, rel=0.15)


@given(data=st.data())
def test_the_seed_decides_the_shuffles(draw_study, data) -> None:
    table = analysis.gradient_similarity(*draw_study(data).tables)
    seed = data.draw(st.integers(0, 2**32 - 1))
    assert_frame_equal(analysis.controls(table, seed=seed), analysis.controls(table, seed=seed))


def test_answer_lengths_count_unmasked_tokens() -> None:
    tokenized = pl.DataFrame(
        {"id": ["a", "b"], "labels": [[-100, -100, 5, 0], [-100, 7, 7, 7]]},
        schema_overrides={"labels": pl.List(pl.Int32)},
    )
    assert analysis.answer_lengths(tokenized).rows() == [("a", 2), ("b", 3)]


def test_answer_lengths_count_words() -> None:
    samples = pl.DataFrame(
        {
            "id": ["a"],
            "messages": [
                [
                    {"role": "user", "content": "one two three four"},
                    {"role": "assistant", "content": "  five\n six "},
                ]
            ],
        }
    )
    assert analysis.answer_lengths(samples).rows() == [("a", 2)]
