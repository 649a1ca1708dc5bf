"""The page as readers use it, in a browser."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest
from playwright.sync_api import expect

from gradsim.report import render_report
from gradsim_assets_tests.gradsim.plots import frames
from gradsim_assets_tests.gradsim.report.studies import NASTY, ids_of, make_report, make_setting, messages, sizes

pytestmark = pytest.mark.slow

WIDE, NARROW = (1440, 900), (390, 844)


@pytest.fixture
def open_page(open_file, html, tmp_path: Path) -> Callable:
    """Opens the report of the small study."""
    file = tmp_path / "report.html"
    file.write_text(html, encoding="utf-8")
    return lambda *args, **options: open_file(file, *args, **options)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [WIDE, (800, 900), NARROW, (320, 700)], ids=str)
def test_nothing_sticks_out(open_page, size, scheme: str) -> None:
    page = open_page(size, scheme)
    for folded in page.locator("details.folded > summary").all():
        folded.evaluate("summary => { summary.parentElement.open = true; }")
    assert page.evaluate("document.scrollingElement.scrollWidth <= innerWidth")
    # What is hidden from the eyes must not make the page longer.
    last = "document.querySelector('#provenance').getBoundingClientRect().bottom + scrollY"
    assert page.evaluate(f"document.scrollingElement.scrollHeight - ({last})") < 300
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert background == {"light": "rgb(252, 251, 248)", "dark": "rgb(20, 23, 27)"}[scheme]


@pytest.mark.parametrize("size", [WIDE, NARROW, (320, 700)], ids=str)
def test_numbers_stay_on_one_line(open_page, size) -> None:
    page = open_page(size)
    page.evaluate("for (const each of document.querySelectorAll('details')) each.open = true")
    lines = """
        numbers => numbers.map((number) => {
          const range = document.createRange();
          range.selectNodeContents(number);
          return new Set([...range.getClientRects()].map((part) => Math.round(part.top / 5))).size;
        })
    """
    for selector in (".candidates .value", ".number-card .value", "td.number"):
        numbers = page.locator(f"{selector}:visible")
        assert numbers.count() > 2
        assert max(numbers.evaluate_all(lines)) == 1, selector
        assert numbers.evaluate_all("numbers => numbers.every(number => number.scrollWidth <= number.clientWidth + 1)")


def test_each_width_has_its_drawing(open_page) -> None:
    for size, shown in ((WIDE, "wide"), (NARROW, "narrow")):
        drawing = open_page(size).locator("#accuracy .drawing").first
        assert [place for place in ("wide", "narrow") if drawing.locator(f".for-{place}").is_visible()] == [shown]


def test_a_table_is_sorted(open_page) -> None:
    page = open_page()
    page.locator("#accuracy .panel:visible summary", has_text="Null controls as a table").click()
    table = page.locator("#accuracy .panel:visible table", has_text="Null controls")

    def shown() -> list[float]:
        return [float(value) for value in table.locator("tbody td:nth-child(2)").evaluate_all(
            "cells => cells.map(cell => cell.dataset.value)"
        )]  # fmt: skip

    unsorted = shown()
    heading = table.get_by_role("button", name="accuracy")
    heading.click()
    assert shown() == sorted(unsorted)
    heading.press("Enter")
    assert shown() == sorted(unsorted, reverse=True)
    assert table.locator("th").nth(1).get_attribute("aria-sort") == "descending"


def test_numbers_are_downloaded(open_page, settings, tmp_path: Path) -> None:
    page = open_page()
    with page.expect_download() as waiting:
        page.locator('#retrieval button[data-csv="paraphrased_retrieval"]:visible').first.click()
    assert waiting.value.suggested_filename == "paraphrased_retrieval.csv"
    waiting.value.save_as(tmp_path / "given.csv")
    expected = settings[0].tables["retrieval"]
    assert pl.read_csv(tmp_path / "given.csv")["value"].to_list() == expected["value"].to_list()


def test_one_setting_is_shown_at_a_time(open_page) -> None:
    page = open_page()
    layers = page.locator("#layers figure[data-key=means_by_depth]")
    assert [figure.is_visible() for figure in layers.all()] == [True, False]
    layers.first.evaluate("figure => figure.scrollIntoView({ behavior: 'instant' })")
    before = layers.first.bounding_box()["y"]
    page.locator(".switch label", has_text="Model-generated").click()
    assert [figure.is_visible() for figure in layers.all()] == [False, True]
    # The same figure of the other setting stands where the first one stood.
    assert layers.last.bounding_box()["y"] == pytest.approx(before, abs=2)
    assert page.locator(".picker .found").inner_text() == "20 queries"


def test_the_contents_follow_the_reader(open_page) -> None:
    page = open_page(NARROW)
    page.locator("nav a", has_text="Method").click()
    current = page.locator("nav a[aria-current]")
    expect(current).to_have_text("Method")
    box = current.bounding_box()
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= NARROW[0]


def test_queries_are_searched_filtered_and_chosen(open_page, settings) -> None:
    page = open_page()
    decisions = settings[0].tables["decisions"]
    wrong = decisions.filter(pl.col("credit") < 1).sort("margin")["query_id"].to_list()
    heading, items = page.locator(".chosen h3"), page.locator(".queries li")
    # To begin with: the clearest of the wrong ones, its choice beside it.
    assert heading.inner_text() == f"Query {wrong[0]}"
    assert page.locator(".decision").inner_text().startswith("Wrong: ")

    page.locator(".chips label", has_text="Wrong").click()
    assert items.locator(".id").all_inner_texts() == wrong
    page.locator(".chips label", has_text="Forced").click()
    assert items.locator(".id").all_inner_texts() == [f"s{number}" for number in range(5)]
    page.locator(".chips label", has_text="All").click()

    page.get_by_role("searchbox").fill("rewritten S12?")
    assert page.locator(".found").inner_text() == "1 query"
    items.click()
    assert heading.inner_text() == "Query s12"
    assert page.url.endswith(
        f"#pair=paraphrased/s12/{page.locator('.candidates li.compared').get_attribute('data-item')}"
    )
    page.get_by_role("searchbox").fill("nobody says this")
    assert (items.count(), page.locator(".found").inner_text()) == (0, "0 queries")
    assert heading.inner_text() == "Query s12"


@pytest.mark.parametrize("clear", ["fill", "Escape", "setting"])
def test_a_search_that_is_cleared_leaves_nothing_behind(open_page, clear: str) -> None:
    page = open_page()
    search, hits, every = page.get_by_role("searchbox"), page.locator(".queries.hits"), page.locator(".queries.all")
    assert (hits.is_visible(), hits.locator("li").count(), every.locator("li").count()) == (False, 0, 20)
    search.fill("rewritten s1")
    assert hits.locator(".id").all_inner_texts() == ["s1", *(f"s{number}" for number in range(10, 20))]
    assert (hits.is_visible(), every.is_visible(), every.locator("li").count()) == (True, False, 0)
    hits.locator("li").nth(2).click()
    expect(page.locator(".chosen h3")).to_have_text("Query s11")
    if clear == "setting":
        page.locator(".switch label", has_text="Model-generated").click()
        expect(page.locator(".found")).to_have_text("11 queries")
    if clear == "Escape":
        search.press("Escape")
    else:
        search.fill("")
    assert (hits.is_visible(), hits.locator("li").count()) == (False, 0)
    assert page.locator(".found").inner_text() == "20 queries"
    assert every.locator("li").count() == 20
    # The chosen query stays, in sight within its list.
    assert every.locator('[aria-selected="true"]').get_attribute("data-item") == "s11"
    page.get_by_role("button", name="Next").click()
    expect(page.locator(".chosen h3")).to_have_text("Query s12")


def test_queries_are_chosen_by_keys(open_page) -> None:
    page = open_page()
    heading = page.locator(".chosen h3")
    page.get_by_role("searchbox").press("ArrowDown")
    assert heading.inner_text() == "Query s0"
    for key, query in (("ArrowDown", "s1"), ("End", "s19"), ("ArrowUp", "s18"), ("Home", "s0")):
        page.keyboard.press(key)
        assert heading.inner_text() == f"Query {query}"
        assert page.evaluate("document.activeElement.dataset.item") == query
    page.get_by_role("button", name="Next").click()
    assert heading.inner_text() == "Query s1"
    page.get_by_role("button", name="Previous").click()
    assert page.get_by_role("button", name="Previous").is_disabled()


def test_candidates_and_their_texts(open_page, settings) -> None:
    page = open_page(hash_="#pair=paraphrased/s7")
    dots = settings[0].layer_dots
    pairs = dots.pairs.with_columns(similarity=dots.similarity()).filter(query_id="s7")
    expected = pairs.sort("similarity", descending=True)
    items = page.locator(".candidates li")
    expect(page.locator(".chosen h3")).to_have_text("Query s7")
    assert items.evaluate_all("items => items.map(item => item.dataset.item)") == expected["original_id"].to_list()
    shown = [float(value.replace("−", "-")) for value in items.locator(".value").all_inner_texts()]
    assert shown == pytest.approx(expected["similarity"].to_list(), abs=5e-5)
    assert page.locator(".candidates li.source").get_attribute("data-item") == "s7"

    last = expected["original_id"][-1]
    items.first.click()
    page.keyboard.press("End")
    query, candidate = page.locator(".texts article").all()
    assert candidate.locator("code").inner_text() == last
    assert f"original of {last}?" in candidate.inner_text()
    assert "rewritten of s7?" in query.inner_text()
    # Nothing in a text is markup.
    assert query.locator(".content").last.text_content() == f"rewritten\n  {NASTY}"
    assert page.locator(".texts img, .texts script").count() == 0


def test_similarities_by_layer(open_page, settings) -> None:
    page = open_page(hash_="#pair=paraphrased/s7/s7")
    expect(page.locator(".chosen h3")).to_have_text("Query s7")
    assert page.locator(".by-layer figcaption").all_inner_texts() == [
        "attention q", "attention v", "MLP up", "MLP down", "outside the blocks",
    ]  # fmt: skip
    dots = settings[0].layer_dots
    pair = dots.pairs.with_row_index("pair").filter(query_id="s7", original_id="s7")["pair"][0]
    source = dots.layer_similarities()[pair]
    chart = page.locator(".by-layer")
    chart.focus()
    page.keyboard.press("Home")
    page.keyboard.press("ArrowRight")
    readout = page.locator(".readout")
    assert "1.self_attn.q_proj (attention q, block 1)" in readout.inner_text()
    assert readout.locator(".source .name").inner_text() == "s7 (source)"
    assert readout.locator(".source .value").inner_text() == f"{source[5]:.4f}".replace("-", "−")
    height = readout.bounding_box()["height"]
    page.keyboard.press("Tab")
    assert readout.locator(".source .value").inner_text() == ""
    assert readout.bounding_box()["height"] == height

    # The last panel's only layer, by pointer.
    panel = chart.locator("svg").last
    panel.scroll_into_view_if_needed()
    panel.hover()
    assert "embed_tokens (embedding)" in readout.inner_text()

    page.locator(".layer-table summary").click()
    rows = page.locator(".layer-table tbody tr")
    expect(rows).to_have_count(len(source))
    column = page.locator(".layer-table thead th").all_inner_texts().index("s7 (source)")
    values = rows.evaluate_all(f"rows => rows.map(row => Number(row.cells[{column}].dataset.value))")
    assert values == pytest.approx(source, abs=2e-5)


def test_a_link_leads_to_a_pair_of_any_setting(open_page) -> None:
    page = open_page(NARROW, hash_="#pair=model_generated/s3/s4")
    expect(page.locator(".chosen h3")).to_have_text("Query s3")
    assert page.locator(".switch input:checked").get_attribute("value") == "model_generated"
    assert page.locator(".candidates li.compared").get_attribute("data-item") == "s4"
    assert page.evaluate("Math.abs(document.querySelector('#queries').getBoundingClientRect().top)") < 200
    page.evaluate("location.hash = '#pair=paraphrased/s5'")
    expect(page.locator(".chosen h3")).to_have_text("Query s5")
    assert page.locator(".switch input:checked").get_attribute("value") == "paraphrased"


def test_without_scripts_all_is_shown(chromium, html: str) -> None:
    page = chromium.new_page(java_script_enabled=False)
    page.set_content(html)
    assert all(figure.is_visible() for figure in page.locator("figure").all())
    # What would do nothing is not offered, and why is said before anything else.
    for selector in (".browser", ".switch", ".csv"):
        assert not any(part.is_visible() for part in page.locator(selector).all())
    notice = page.locator("noscript p")
    assert "need JavaScript" in notice.inner_text()
    assert notice.bounding_box()["y"] < page.locator("h1").bounding_box()["y"]


def test_a_study_like_the_bundled_one_is_a_short_page(open_file, tmp_path: Path) -> None:
    """With its settings, queries, candidates and layers, and all details folded."""
    parts = [*(f"self_attn.{name}_proj" for name in "qkvo"), *(f"mlp.{name}_proj" for name in ("gate", "up", "down"))]
    layers = [
        "model.embed_tokens.weight",
        *(f"model.layers.{block}.{part}.weight" for block in range(3) for part in parts),
    ]
    setting = make_setting("paraphrased", lift=0.1, n_queries=60, n_candidates=5, layers=layers, forced=11)
    others = [dataclasses.replace(setting, setting=name) for name in ("model_generated", "word_dropout")]
    data = make_report(setting, *others, parameters_per_layer=sizes(layers), originals=messages(ids_of(60), "original"))
    file = tmp_path / "report.html"
    file.write_text(render_report(data), encoding="utf-8")
    page = open_file(file)
    assert page.locator("details[open]").count() == 0
    assert page.evaluate("document.scrollingElement.scrollHeight") <= 9000


def test_details_are_folded_and_unfold_without_scripts(chromium, html: str) -> None:
    page = chromium.new_page(java_script_enabled=False)
    page.set_content(html)
    figures = page.locator("#layers .panel").first.locator("figure")
    drawn = [figure.locator("svg").first.is_visible() for figure in figures.all()]
    assert drawn == [True, *([False] * (len(drawn) - 1))], "the first figure of a panel is the one to see"
    assert len(drawn) > 5
    assert all(figure.locator("figcaption").is_visible() for figure in figures.all())
    assert not any(table.is_visible() for table in page.locator("table").all())
    folded = figures.nth(1).locator("summary")
    folded.focus()
    page.keyboard.press("Enter")
    assert figures.nth(1).locator("svg").first.is_visible()


def test_on_paper_everything_is_shown(open_page) -> None:
    page = open_page()
    page.emulate_media(media="print")
    for selector in ("table", "figure svg", "#method h3", ".columns dd"):
        parts = page.locator(f":is(main, #browser) {selector}")
        heights = parts.evaluate_all(
            "parts => parts.map(part => part.checkVisibility({ contentVisibilityAuto: true }))"
        )
        narrow = page.locator(f":is(main, #browser) .for-narrow {selector.split()[-1]}").count()
        assert len(heights) > 5, selector
        assert sum(heights) == len(heights) - narrow, selector


def test_on_paper_nothing_is_cut_off(open_page) -> None:
    page = open_page()
    page.emulate_media(media="print")
    styles = {
        (".table", "overflowX"): "visible",
        (".track .range", "printColorAdjust"): "exact",
        (".bar i", "printColorAdjust"): "exact",
        ("h3", "breakAfter"): "avoid",
    }
    for (selector, style), expected in styles.items():
        found = page.locator(selector).first.evaluate("(node, style) => getComputedStyle(node)[style]", style)
        assert found == expected, selector
    assert all(figure.is_visible() for figure in page.locator("figure[data-key]").all())
    page.set_viewport_size({"width": 720, "height": 1000})  # A4 less its margins
    assert page.evaluate("document.scrollingElement.scrollWidth <= innerWidth")


@pytest.mark.parametrize("size", [WIDE, (800, 900), NARROW], ids=str)
def test_long_names_stick_out_nowhere(open_file, settings, tmp_path: Path, size) -> None:
    names = ("a_setting_that_somebody_named_without_a_thought_for_readers_of_small_pages", "X" * 60)
    first, second = (dataclasses.replace(setting, setting=name) for setting, name in zip(settings, names, strict=True))
    file = tmp_path / "report.html"
    transfer = frames.transfer(names, [0.5, 0.6], [0.4, 0.5])
    data = make_report(first, second, study="W" * 80, selection_transfer=transfer)
    file.write_text(render_report(data), encoding="utf-8")
    page = open_file(file, size)
    assert page.evaluate("document.scrollingElement.scrollWidth <= innerWidth")


def test_tables_fit_their_column(open_page) -> None:
    page = open_page()
    page.evaluate("for (const each of document.querySelectorAll('details')) each.open = true")
    wider = "tables => tables.filter(table => table.scrollWidth > table.clientWidth).map(table => table.ariaLabel)"
    assert page.locator(".table:visible").evaluate_all(wider) == []


def test_a_study_without_texts(open_file, tmp_path: Path) -> None:
    setting = make_setting("paraphrased", lift=0.1, questions=("accuracy", "controls", "decisions"))
    bare = type(setting)("paraphrased", setting.tables, None, setting.layer_dots)
    file = tmp_path / "report.html"
    file.write_text(render_report(make_report(bare, originals=None)), encoding="utf-8")
    page = open_file(file)
    assert page.locator(".texts").inner_text().count("This text is not available.") == 2
    assert page.locator(".switch").count() == 0
