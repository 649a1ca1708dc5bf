import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.stats import binomtest, bootstrap

from gradsim.analysis import statistics
from gradsim.analysis.statistics import Bootstrap, exact_mcnemar, holm, percentile_interval, wilson_interval


@given(st.integers(1, 2000), st.data())
def test_wilson_is_scipys(trials: int, data: st.DataObject) -> None:
    successes = data.draw(st.integers(0, trials))
    expected = binomtest(successes, trials).proportion_ci(0.95, method="wilson")
    low, high = wilson_interval(successes, trials)
    np.testing.assert_allclose([low, high], [expected.low, expected.high], atol=1e-12)


def test_wilson_known_value() -> None:
    # R. G. Newcombe, Statistics in Medicine 17 (1998), 857-872, table I, method 3.
    low, high = wilson_interval(81, 263)
    assert (round(float(low), 4), round(float(high), 4)) == (0.2553, 0.3662)


def test_wilson_ends_are_exact() -> None:
    low, high = wilson_interval([0, 7], 7)
    assert low[0] == 0
    assert high[1] == 1
    assert 0 < high[0] < 1
    assert 0 < low[1] < 1


def test_wilson_holds_shares_of_ties() -> None:
    low, high = wilson_interval(2.5, 4)
    assert low < 2.5 / 4 < high


@pytest.mark.parametrize(("successes", "trials"), [(0, 0), (-1, 4), (5, 4)])
def test_wilson_refuses_what_is_no_share(successes: int, trials: int) -> None:
    with pytest.raises(ValueError, match="at least one trial"):
        wilson_interval(successes, trials)


def test_the_same_seed_draws_the_same_queries() -> None:
    values = np.random.default_rng(0).standard_normal((50, 3))
    assert (Bootstrap(50, seed=1).totals(values) == Bootstrap(50, seed=1).totals(values)).all()
    assert (Bootstrap(50, seed=1).totals(values) != Bootstrap(50, seed=2).totals(values)).any()


@given(data=st.data())
def test_the_bootstrap_is_a_plain_loop_over_draws(data) -> None:
    n = data.draw(st.integers(1, 12), "queries")
    shape = (n, data.draw(st.integers(1, 3), "columns"))
    values = data.draw(hnp.arrays(np.float64, shape, elements=st.integers(-3, 3).map(float)))
    draws = np.random.default_rng(8).integers(n, size=(40, n))
    with pytest.MonkeyPatch.context() as patch:
        # However many are drawn at once.
        patch.setattr(statistics, "_WEIGHTS_AT_ONCE", data.draw(st.integers(1, 600)))
        resamples = Bootstrap(n, seed=8, resamples=40)
        totals, medians = resamples.totals(values), resamples.medians(values)
        low, high = resamples.mean_interval(values)
    np.testing.assert_allclose(totals, [values[drawn].sum(axis=0) for drawn in draws], atol=1e-12)
    np.testing.assert_array_equal(medians, [np.median(values[drawn], axis=0) for drawn in draws])
    means = [values[drawn].mean(axis=0) for drawn in draws]
    np.testing.assert_allclose(low, np.quantile(means, 0.025, axis=0), atol=1e-12)
    np.testing.assert_allclose(high, np.quantile(means, 0.975, axis=0), atol=1e-12)


@pytest.mark.parametrize("statistic", ["mean", "median"])
def test_intervals_are_scipys_but_for_the_draws(statistic: str) -> None:
    values = np.random.default_rng(3).exponential(size=400)
    resamples = Bootstrap(400, seed=5, resamples=20_000)
    draws = resamples.totals(values[:, None]) / 400 if statistic == "mean" else resamples.medians(values[:, None])
    low, high = percentile_interval(draws[:, 0])
    expected = bootstrap(
        (values,), getattr(np, statistic), n_resamples=20_000, method="percentile", rng=np.random.default_rng(6)
    ).confidence_interval
    # 20,000 draws: the ends stray by about 1 % of the width.
    width = expected.high - expected.low
    assert low == pytest.approx(expected.low, abs=0.05 * width)
    assert high == pytest.approx(expected.high, abs=0.05 * width)


def test_one_query_leaves_nothing_to_draw() -> None:
    assert [end.tolist() for end in Bootstrap(1, seed=0).mean_interval(np.array([[0.25, 4.0]]))] == [[0.25, 4]] * 2


@given(st.integers(0, 400), st.integers(0, 400))
def test_mcnemar_is_scipys_binomial_test(first: int, second: int) -> None:
    expected = binomtest(first, first + second).pvalue if first + second else 1.0
    assert float(exact_mcnemar(first, second)) == pytest.approx(expected, rel=1e-9)


def test_mcnemar_takes_arrays() -> None:
    # Of six queries at most two (22 of 64 outcomes), of five none (1 of 32), twice.
    assert exact_mcnemar([[2, 0]], [[4, 5]]).tolist() == [[pytest.approx(44 / 64), pytest.approx(1 / 16)]]


def plain_holm(p_values: list[float]) -> list[float]:
    """The least level at which each hypothesis is rejected by the step-down procedure."""
    levels = sorted({0.0, *(min(1.0, p * m) for p in p_values for m in range(1, len(p_values) + 1)), 1.0})

    def rejected(level: float) -> set[int]:
        found: set[int] = set()
        while len(found) < len(p_values):
            left = [at for at in range(len(p_values)) if at not in found]
            first = min(left, key=lambda at: p_values[at])
            if p_values[first] * len(left) > level:
                break
            found.add(first)
        return found

    return [min((level for level in levels if at in rejected(level)), default=1.0) for at in range(len(p_values))]


@given(st.lists(st.floats(0, 1), max_size=7))
def test_holm_is_the_least_level_that_rejects(p_values: list[float]) -> None:
    assert holm(np.array(p_values)).tolist() == pytest.approx(plain_holm(p_values))


def test_holm_known_value() -> None:
    assert holm(np.array([0.01, 0.04, 0.03, 0.005])).tolist() == pytest.approx([0.03, 0.06, 0.06, 0.02])
