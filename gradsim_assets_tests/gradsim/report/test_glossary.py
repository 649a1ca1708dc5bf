"""Technical terms are explained where they are used."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import expect

from gradsim.analysis.layers import COMPONENTS
from gradsim.plots.labels import CONTROLS, METHODS
from gradsim.report.glossary import TERMS, Glossary
from gradsim.study.definition import PROJECTION_KINDS
from gradsim_assets_tests.gradsim.report.studies import NASTY, Page

BUTTON = re.compile(r'<button type="button" class="term" popovertarget="term-([\w-]+)">(.*?)</button>')


def explained(text: str) -> list[tuple[str, str]]:
    """Terms of a text with the words that stand for them."""
    return BUTTON.findall(Glossary().part()(text))


@pytest.mark.parametrize(
    ("text", "terms"),
    [
        (
            "The full gradient has no significant lead",
            [("full-gradient", "full gradient"), ("significant", "significant")],
        ),
        ("Similarity to the full gradient", [("similarity-to-full", "Similarity to the full gradient")]),
        ("p\u00a0=\u00a00.2 of queries", [("p", "p"), ("queries", "queries")]),
        ("95\u00a0% confidence intervals", [("interval", "95\u00a0% confidence intervals")]),
        ("sjlt, 13.3 k dimensions", [("sjlt", "sjlt"), ("dimensions", "dimensions")]),
        ("the chanceless sourcebook of a blocker with layernorms and prenorm", []),
    ],
)
def test_terms_are_found(text: str, terms: list[tuple[str, str]]) -> None:
    assert explained(text) == terms


def test_a_part_explains_a_term_once_and_escapes_its_texts() -> None:
    glossary = Glossary()
    part = glossary.part()
    assert [name for name, _ in BUTTON.findall(part("BM25 and BM25"))] == ["bm25"]
    assert str(part("BM25")) == "BM25"
    assert BUTTON.findall(glossary.part()("BM25")) == [("bm25", "BM25")]
    assert "<script" not in part(NASTY)
    assert [term.name for term in glossary] == ["bm25"]


def test_punctuation_stays_beside_its_word() -> None:
    """Browsers break lines before and after buttons."""
    parts = re.findall(r'<span class="unbroken">(.*?)</span>', Glossary().part()("found (BM25) by a query."))
    assert [BUTTON.sub(lambda button: button[2], part) for part in parts] == ["(BM25)", "query."]


@pytest.mark.parametrize("name", [*METHODS.values(), *CONTROLS.values(), *PROJECTION_KINDS, *COMPONENTS[:11]])
def test_every_method_control_projection_and_component_is_explained(name: str) -> None:
    text = f"reached with {name}, 40 dimensions" if name in PROJECTION_KINDS else f"of {name} layers"
    assert set(explained(text)) - {("dimensions", "dimensions"), ("layers", "layers")}


def test_names_are_unique_and_explanations_short() -> None:
    assert len({term.name for term in TERMS}) == len(TERMS)
    assert all(len(term.explanation) < 240 and term.explanation.endswith(".") for term in TERMS)


@pytest.mark.slow
def test_every_sentence_of_the_page_explains_its_terms(html: str, page: Page) -> None:
    """In each part of the page, apart from the definitions, which explain themselves."""
    targets = {name for name, _ in BUTTON.findall(html)}
    assert len(targets) > 30
    assert targets == {name.removeprefix("term-") for name in page.ids if name.startswith("term-")}
    for panel in html.split('<div class="panel"')[1:]:
        for figcaption in re.findall(r"<figcaption>(.*?)</figcaption>", panel.split('<div class="panel"')[0]):
            bare = BUTTON.sub(lambda found: found[2], figcaption)
            for name, words in explained(bare):
                before = panel[: panel.index(figcaption) + len(figcaption)]
                assert f'popovertarget="term-{name}"' in before, words


@pytest.mark.slow
@pytest.mark.parametrize("size", [(1440, 900), (390, 844)], ids=str)
def test_explanations_open_by_key_within_the_window(open_file: Callable, html: str, tmp_path: Path, size) -> None:
    file = tmp_path / "report.html"
    file.write_text(html, encoding="utf-8")
    page = open_file(file, size)
    opened = page.locator(".explanation:popover-open")
    for number in (0, 3, 8):
        term = page.locator("h1 .term, .leads .term, #layers .panel:visible .term").nth(number)
        term.evaluate("term => term.scrollIntoView({ block: 'center', behavior: 'instant' })")
        term.focus()
        expect(opened).to_have_count(0)
        page.keyboard.press("Enter")
        expect(opened).to_have_count(1)
        assert opened.get_attribute("id") == term.get_attribute("popovertarget")
        box = opened.bounding_box()
        assert 0 <= box["x"] <= box["x"] + box["width"] <= size[0]
        assert 0 <= box["y"] <= box["y"] + box["height"] <= size[1]
        page.keyboard.press("Escape")
        expect(opened).to_have_count(0)
