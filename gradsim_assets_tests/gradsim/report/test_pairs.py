"""What the pair browser is given."""

import json

import numpy as np
import pytest

from gradsim.report import SettingReport, render_report
from gradsim.report import browser as pair_browser
from gradsim.report.browser import STEPS
from gradsim_assets_tests.gradsim.report.studies import LAYERS, LEAST, NASTY, Page, make_report, make_setting

QUESTIONS = (*LEAST, "divergence")


@pytest.fixture(scope="module")
def setting() -> SettingReport:
    return make_setting("paraphrased", lift=0.1, questions=QUESTIONS)


def page_of(setting: SettingReport) -> Page:
    return Page(render_report(make_report(setting)))


@pytest.fixture(scope="module")
def page(setting) -> Page:
    return page_of(setting)


def candidates(pairs: dict, query: int) -> list[tuple[str, int, float]]:
    """Original, rank and similarity of a query's candidates."""
    starts = [*pairs["starts"], len(pairs["candidate"])]
    at = slice(starts[query], starts[query + 1])
    names = [pairs["originals"][place] for place in pairs["candidate"][at]]
    return list(zip(names, pairs["rank"][at], pairs["similarity"][at], strict=True))


def test_queries_and_candidates(page: Page, setting) -> None:
    pairs = page.pairs("paraphrased")
    decisions, dots = setting.tables["decisions"], setting.layer_dots
    assert pairs["queries"] == decisions["query_id"].to_list()
    assert pairs["credit"] == decisions["credit"].to_list()
    assert pairs["forced"] == decisions["forced"].to_list()
    np.testing.assert_allclose(pairs["margin"], decisions["margin"], atol=1e-6)
    divergence = dict(setting.tables["divergence"].select("query_id", "rank").iter_rows())
    assert pairs["divergence"]["rank"] == [divergence[query] for query in pairs["queries"]]

    whole = dots.pairs.with_columns(similarity=dots.similarity()).sort("similarity", descending=True)
    for query, name in enumerate(pairs["queries"]):
        expected = whole.filter(query_id=name).select("original_id", "rank", "similarity").rows()
        for found, (original, rank, similarity) in zip(candidates(pairs, query), expected, strict=True):
            assert found[:2] == (original, rank)
            assert found[2] == pytest.approx(similarity, abs=1e-6)


def test_similarities_by_layer(page: Page, setting) -> None:
    pairs = page.pairs("paraphrased")
    steps = np.frombuffer(page.unpacked("similarities", "paraphrased"), "<i2").reshape(-1, len(LAYERS))
    dots = setting.layer_dots
    expected = dots.pairs.select("query_id", "original_id").with_row_index("pair")
    places = {(query, original): pair for pair, query, original in expected.iter_rows()}
    order = [
        places[name, original]
        for query, name in enumerate(pairs["queries"])
        for original, _, _ in candidates(pairs, query)
    ]
    np.testing.assert_allclose(steps / STEPS, dots.layer_similarities()[order], atol=0.5 / STEPS + 1e-12)


def test_texts_are_carried_as_they_are(page: Page) -> None:
    queries = json.loads(page.unpacked("texts", "paraphrased"))
    originals = json.loads(page.unpacked("texts", "originals"))
    assert queries["s3"] == [["user", "rewritten of s3?"], ["assistant", f"rewritten\n  {NASTY}"]]
    assert originals["s3"][1] == ["assistant", f"original\n  {NASTY}"]
    assert len(queries) == len(originals) == 20


def test_layers_are_described(page: Page) -> None:
    layers = json.loads(page.html.split('id="layers-data">')[1].split("</script>")[0])
    assert layers[0] == {"label": "embed_tokens", "component": "embedding", "block": None}
    assert layers[-1] == {"label": "2.mlp.down_proj", "component": "MLP down", "block": 2}


def test_all_pairs_are_cut_to_the_best_and_the_source(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pair_browser, "BEST_CANDIDATES", 2)
    monkeypatch.setattr(pair_browser, "MOST_PAIR_BYTES", 20 * 3 * (2 * len(LAYERS) + 16))
    page = page_of(make_setting("paraphrased", lift=-0.1, n_candidates=20, questions=QUESTIONS))
    pairs = page.pairs("paraphrased")
    assert len(pairs["queries"]) == 20
    for query, name in enumerate(pairs["queries"]):
        found = candidates(pairs, query)
        assert name in {original for original, _, _ in found}
        assert len(found) in {2, 3}
    assert "It shows the 2 most similar candidates and the true source of each query." in page.text
    assert "The page contains" not in page.text


def test_of_too_many_queries_the_wrong_ones_stay_longest(setting, monkeypatch: pytest.MonkeyPatch) -> None:
    decisions = setting.tables["decisions"]
    wrong = set(decisions.filter(credit=0)["query_id"])
    assert 2 < len(wrong) < 12
    monkeypatch.setattr(pair_browser, "MOST_PAIR_BYTES", 12 * 3 * (2 * len(LAYERS) + 16))
    page = page_of(setting)
    pairs = page.pairs("paraphrased")
    assert wrong < set(pairs["queries"])
    assert len(pairs["queries"]) == 12
    assert pairs["total"] == 20
    assert pairs["queries"] == [query for query in decisions["query_id"] if query in pairs["queries"]]
    assert "The page contains 12 of 20 queries" in page.text
    steps = np.frombuffer(page.unpacked("similarities", "paraphrased"), "<i2")
    assert len(steps) == 12 * 3 * len(LAYERS)
    assert len(json.loads(page.unpacked("texts", "paraphrased"))) == 12


def test_long_texts_count_too(setting, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pair_browser, "MOST_LETTERS", 2_000)
    pairs = page_of(setting).pairs("paraphrased")
    assert 1 <= len(pairs["queries"]) < 10


def test_without_texts_the_numbers_are_there(setting) -> None:
    bare = SettingReport("paraphrased", setting.tables, None, setting.layer_dots)
    page = Page(render_report(make_report(bare, originals=None)))
    assert len(page.pairs("paraphrased")["queries"]) == 20
    assert not any("data-texts" in attributes for attributes in page.scripts)
