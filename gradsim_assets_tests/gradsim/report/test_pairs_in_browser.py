"""The pair browser's sentences, links, keys and drawings, in a browser."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest
from playwright.sync_api import expect

from gradsim.report import ReportData, SettingReport, render_report
from gradsim_assets_tests.gradsim.report.studies import LEAST, ids_of, make_report, make_setting, messages

pytestmark = pytest.mark.slow

QUESTIONS = (*LEAST, "divergence")


@pytest.fixture
def open_report(open_file, tmp_path: Path) -> Callable:
    """Opens a report of some settings, or other data."""

    def open_it(*settings: SettingReport, data: ReportData | None = None, **options):
        file = tmp_path / "report.html"
        file.write_text(render_report(data or make_report(*settings)), encoding="utf-8")
        return open_file(file, **options)

    return open_it


@pytest.fixture(scope="module")
def setting() -> SettingReport:
    return make_setting("paraphrased", lift=0.1, questions=QUESTIONS)


@pytest.fixture(scope="module")
def other() -> SettingReport:
    return make_setting("model_generated", lift=0.0, questions=QUESTIONS)


def test_the_most_divergent_query_is_the_first(open_report, setting) -> None:
    first = setting.tables["divergence"].filter(rank=0)["query_id"][0]
    page = open_report(setting, hash_=f"#pair=paraphrased/{first}")
    expect(page.locator(".chosen h3")).to_have_text(f"Query {first}")
    assert ": 1st in divergence of 20 queries." in page.locator(".decision").inner_text()


def test_the_sentence_is_that_of_the_decision(open_report, setting) -> None:
    row = setting.tables["decisions"].filter(credit=0).row(0, named=True)
    page = open_report(setting, hash_=f"#pair=paraphrased/{row['query_id']}")
    numbers = [f"{row[name]:.4f}".replace("-", "−") for name in ("best_other_similarity", "source_similarity")]
    expect(page.locator(".decision")).to_contain_text(
        f"Wrong: {row['chosen_id']} is more similar ({numbers[0]}) than the source ({numbers[1]}), by "
        f"{-row['margin']:.4f}. BM25"
    )


def test_decisions_may_be_by_other_similarities_than_the_dots(open_report, setting) -> None:
    """As imported ones may be: the source is first by the dots, and was not chosen."""
    dots = setting.layer_dots
    pairs = dots.pairs.with_columns(similarity=dots.similarity()).sort("similarity", descending=True)
    best = pairs.group_by("query_id", maintain_order=True).first()
    query = best.filter(pl.col("query_id") == pl.col("original_id"))["query_id"][0]
    changed = pl.col("query_id") == query
    decisions = setting.tables["decisions"].with_columns(
        chosen_id=pl.when(changed).then(pl.lit("elsewhere")).otherwise("chosen_id"),
        source_similarity=pl.when(changed).then(0.5).otherwise("source_similarity"),
        best_other_similarity=pl.when(changed).then(0.75).otherwise("best_other_similarity"),
        margin=pl.when(changed).then(-0.25).otherwise("margin"),
        credit=pl.when(changed).then(0.0).otherwise("credit"),
    )
    imported = dataclasses.replace(setting, tables=setting.tables | {"decisions": decisions})
    page = open_report(imported, hash_=f"#pair=paraphrased/{query}")
    expect(page.locator(".decision")).to_contain_text(
        "Wrong: elsewhere is more similar (0.7500) than the source (0.5000), by 0.2500. The list is sorted by "
        "the inner products"
    )


@pytest.mark.parametrize(
    ("hash_", "said"),
    [
        ("#pair=paraphrased/%/x", "The link does not match any query on this page."),
        ("#pair=nowhere/s1", "The link does not match any query on this page."),
        ("#pair=paraphrased/s99", "Query s99 is not on this page."),
    ],
)
def test_a_link_that_leads_nowhere_is_said(open_report, setting, hash_: str, said: str) -> None:
    page = open_report(setting, hash_=hash_)
    notice = page.locator(".notice")
    expect(notice).to_have_text(said)
    page.locator(".queries li").nth(2).click()
    expect(notice).to_be_hidden()
    assert "#pair=paraphrased/s2/" in page.url


def test_the_address_follows_the_setting(open_report, setting, other) -> None:
    page = open_report(setting, other)
    switch = page.locator(".switch label")
    switch.last.click()
    assert "#" not in page.url
    switch.first.click()
    page.locator(".queries li").nth(3).click()
    assert "#pair=paraphrased/s3/" in page.url
    switch.last.click()
    page.wait_for_url("**#pair=model_generated/s3/*")


def test_keys_of_the_browser_are_left_to_it(open_report, setting) -> None:
    page = open_report(setting)
    kept = """
        selector => ["ArrowLeft", "ArrowRight", "ArrowDown", "Home"].every((key) => ["altKey", "ctrlKey", "metaKey"]
          .every((modifier) => document.querySelector(selector).dispatchEvent(
            new KeyboardEvent("keydown", { key, [modifier]: true, bubbles: true, cancelable: true }))))
    """
    for selector in (".by-layer", ".queries li", ".candidates li"):
        assert page.evaluate(kept, selector)
    pressed = 'document.querySelector(".by-layer").dispatchEvent(new KeyboardEvent("keydown", '
    assert not page.evaluate(pressed + '{ key: "ArrowLeft", bubbles: true, cancelable: true }))')


def test_the_readout_stays_when_a_finger_is_lifted(open_report, setting) -> None:
    page = open_report(setting, size=(390, 844))
    leave = 'kind => document.querySelector(".by-layer").dispatchEvent(new PointerEvent("pointerleave", kind))'
    values = page.locator(".readout .value").first
    page.locator(".by-layer svg").last.dispatch_event("pointerdown", {"pointerType": "touch"})
    page.evaluate(leave, {"pointerType": "touch"})
    assert values.inner_text()
    # It is in sight beside the last panel, too.
    last = page.locator(".by-layer figure").last
    last.evaluate("figure => figure.scrollIntoView({ block: 'center', behavior: 'instant' })")
    assert 0 <= page.locator(".readout").bounding_box()["y"] < last.bounding_box()["y"] < 844
    page.evaluate(leave, {"pointerType": "mouse"})
    assert not values.inner_text()


def test_source_and_candidate_differ_without_colours(open_report, setting) -> None:
    page = open_report(setting)
    dashes = "line => getComputedStyle(line).strokeDasharray"
    panel = page.locator(".by-layer svg").first
    assert panel.locator("path.source").evaluate(dashes) == "none"
    assert panel.locator("path.compared").evaluate(dashes) != "none"
    outside = page.locator(".by-layer svg").last
    assert (outside.locator("circle.source").count(), outside.locator("path.spot.compared").count()) == (1, 1)


def test_of_many_candidates_the_best_are_shown(open_report) -> None:
    many = make_setting("paraphrased", lift=-0.3, n_queries=40, n_candidates=40, questions=QUESTIONS)
    page = open_report(data=make_report(many, originals=messages(ids_of(40), "original")))
    items = page.locator(".candidates li")
    assert items.count() == 11
    # The source, which is the last of them, is in its own place.
    assert items.last.get_attribute("class") == "source"
    dots = many.layer_dots
    assert dots
    query = page.locator(".chosen h3").inner_text().removeprefix("Query ")
    ranked = dots.pairs.with_columns(similarity=dots.similarity()).filter(query_id=query)
    place = ranked.sort("similarity", descending=True)["original_id"].to_list().index(query) + 1
    assert place > 11
    assert items.last.locator(".place").inner_text() == str(place)
    assert page.locator(".candidates").evaluate("list => list.clientHeight < 400 && list.scrollHeight > 400")
    assert page.locator(".readout .name").all_inner_texts()[2] == "the 9 others"
    assert page.locator(".readout .key").count() == 3
    assert page.locator(".by-layer svg").first.locator("path").count() == 3


def test_search_asks_for_what_is_there(open_report, setting) -> None:
    assert open_report(setting).get_by_role("searchbox").get_attribute("placeholder") == "Search ids and texts"
    bare = dataclasses.replace(setting, queries=None)
    assert open_report(bare).get_by_role("searchbox").get_attribute("placeholder") == "Search ids"
