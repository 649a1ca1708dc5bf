import base64
import dataclasses
import io
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from gradsim import analysis
from gradsim.analysis import LayerDots
from gradsim.report import ReportData, SettingReport, render_report

NASTY = '<script>alert("x")</script><img src=http://example.org/x>&\'"'
LAYERS = ["model.embed_tokens.weight", *(f"model.layers.{n}.mlp.up_proj.weight" for n in range(3))]


def messages(ids: list[str], text: str) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "id": ids,
            "messages": [
                [
                    {"role": "user", "content": f"{text} of {name}?"},
                    {"role": "assistant", "content": f"{text}\n  {NASTY}"},
                ]
                for name in ids
            ],
        }
    )


def make_setting(name: str, *, lift: float, n_queries: int = 20, forced: bool = False) -> SettingReport:
    """A setting whose sources, at rank 0, are more similar than others by about `lift`."""
    random = np.random.default_rng(3)
    ids = [f"s{number}" for number in range(n_queries)]
    pairs = pl.DataFrame(
        [(ids[at], ids[(at + rank) % n_queries], rank) for at in range(n_queries) for rank in range(3)],
        schema=["query_id", "original_id", "rank"],
        orient="row",
    )
    dots = pairs.join(pl.DataFrame({"layer": LAYERS}), how="cross").with_columns(
        dot=pl.Series(random.normal(0, 0.2, len(pairs) * len(LAYERS))) + lift * (pl.col("rank") == 0)
    )
    self_dots = pl.DataFrame({"id": ids}).join(pl.DataFrame({"layer": LAYERS}), how="cross")
    self_dots = self_dots.with_columns(self_dot=pl.lit(1.0))
    tables = dots, self_dots.rename({"id": "query_id"}), self_dots.rename({"id": "original_id"})
    layer_dots = LayerDots.from_tables(*tables)
    similarity = analysis.gradient_similarity(*tables)
    candidates = pairs.with_columns(
        forced=(pl.col("query_id") == pl.col("original_id")) & pl.col("query_id").is_in(ids[:5])
    )
    candidates = candidates if forced else None
    return SettingReport(
        setting=name,
        accuracy=analysis.accuracy(similarity, candidates),
        controls=analysis.controls(similarity),
        best_similarity=analysis.best_similarity(similarity),
        decisions=analysis.decisions(similarity, candidates),
        accuracy_per_layer=analysis.accuracy_per_layer(layer_dots),
        similarity_to_full_gradient=analysis.similarity_to_full_gradient(layer_dots),
        gradient_audit=make_audit(dots.head(3 * len(LAYERS))),
        queries=messages(ids, "rewritten"),
    )


def make_audit(dots: pl.DataFrame, error: float = 2.1e-7) -> pl.DataFrame:
    """An audit of these dots whose first one is off."""
    reference = dots.with_columns(query_self=pl.lit(1.0), original_self=pl.lit(1.0))
    first = pl.int_range(pl.len()) == 0
    stored = dots.with_columns(pl.col("dot") + pl.when(first).then(error).otherwise(0.0))
    query_self, original_self = (
        dots.select(side, "layer", self_dot=pl.lit(1.0)).unique(maintain_order=True)
        for side in ("query_id", "original_id")
    )
    return analysis.gradient_audit(reference, stored, query_self, original_self)


def make_report(*settings: SettingReport, **changes: object) -> ReportData:
    sizes = pl.DataFrame({"layer": LAYERS, "parameters": [40, 20, 20, 20]})
    whole = {
        "study": f"tiny {NASTY}",
        "settings": settings,
        "provenance": {"Fingerprint": "abc123", f"Model {NASTY}": NASTY},
        "parameters_per_layer": analysis.parameters_per_layer(sizes),
        "originals": messages([f"s{number}" for number in range(20)], "original"),
        "exclusions": pl.DataFrame({"id": [f"s99{NASTY}"], "reason": [NASTY]}),
    }
    return ReportData(**(whole | changes))


class Page(HTMLParser):
    """What stands in a page: tags, addresses, ids, text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.ids: list[str] = []
        self.downloads: dict[str, str] = {}
        self.words: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = {name: value or "" for name, value in attrs}
        self.tags.append(tag)
        self.addresses += [value for name, value in attributes.items() if name in {"href", "src", "xlink:href"}]
        if "id" in attributes:
            self.ids.append(attributes["id"])
        if "download" in attributes:
            self.downloads[attributes["download"]] = attributes["href"]

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


@pytest.fixture(scope="module")
def settings() -> tuple[SettingReport, SettingReport]:
    return (
        make_setting("paraphrased", lift=0.1, forced=True),
        make_setting("model_generated", lift=0.0),
    )


@pytest.fixture(scope="module")
def html(settings) -> str:
    return render_report(make_report(*settings))


@pytest.fixture(scope="module")
def page(html: str) -> Page:
    return Page(html)


def test_nothing_is_fetched(page: Page) -> None:
    assert page.addresses
    assert all(address.startswith(("#", "data:")) for address in page.addresses)
    assert not {"link", "iframe", "object"} & set(page.tags)


def test_every_text_of_the_data_is_escaped(html: str, page: Page) -> None:
    assert "<script>alert" not in html
    assert "<img src" not in html
    assert page.tags.count("script") == 1
    # Study, provenance, exclusions and messages say it all the same.
    assert page.text.count('<script>alert("x")</script>') >= 6


def test_links_lead_somewhere_and_ids_are_unique(page: Page) -> None:
    assert len(set(page.ids)) == len(page.ids)
    targets = {address[1:] for address in page.addresses if address.startswith("#")}
    assert targets <= set(page.ids)


def test_findings_come_first(page: Page, settings) -> None:
    share = settings[0].accuracy.filter(method="full_gradient", group="all")["accuracy"][0]
    headline = f"The full gradient finds the source of {100 * share:.1f} % of paraphrased and"
    assert headline in page.text
    assert page.text.index(headline) < page.text.index("Accuracy beside null controls")


def test_every_table_can_be_downloaded_unrounded(page: Page, settings) -> None:
    def downloaded(name: str) -> pl.DataFrame:
        encoded = page.downloads[name].removeprefix("data:text/csv;charset=utf-8;base64,")
        return pl.read_csv(io.BytesIO(base64.b64decode(encoded)))

    for setting in settings:
        for name in ("accuracy", "controls", "best_similarity", "decisions"):
            table = getattr(setting, name)
            columns = table.select(pl.exclude("forced")).columns
            assert_frame_equal(
                downloaded(f"{setting.setting}_{name}.csv").select(columns),
                table.select(columns),
                check_dtypes=False,
                check_exact=True,
            )
        layers = downloaded(f"{setting.setting}_layers.csv")
        assert layers["accuracy"].to_list() == setting.accuracy_per_layer["accuracy"].to_list()
        assert layers["parameters"].to_list() == [40, 20, 20, 20]
    assert downloaded("exclusions.csv")["reason"].to_list() == [NASTY]


def test_forced_queries_are_reported_apart(page: Page) -> None:
    assert "For 5 queries BM25 did not list the true source" in page.text
    assert "It is not recorded for which queries the true source was put in by rule." in page.text


@pytest.mark.parametrize(
    ("lift", "verdict"),
    [(1.0, "above chance"), (0.0, "not told apart from chance"), (-1.0, "below chance")],
)
def test_verdict_against_chance(lift: float, verdict: str) -> None:
    text = Page(render_report(make_report(make_setting("paraphrased", lift=lift)))).text
    assert f"That is {verdict}, which is 33.3 %" in text


def test_wrong_decisions_are_shown_with_their_texts(settings) -> None:
    setting = settings[0]
    wrong = setting.decisions.filter(pl.col("credit") == 0).sort("margin")
    assert 3 < len(wrong) <= 12
    text = Page(render_report(make_report(setting))).text
    assert f"Shown: all {len(wrong)} queries decided wrongly, the clearest first." in text
    places = []
    for query, chosen, source, other in wrong.select(
        "query_id", "chosen_id", "source_similarity", "best_other_similarity"
    ).iter_rows():
        scores = f"{query} wrong source {source:.4f}, chosen candidate {other:.4f}"
        texts = text[text.index(scores) :]
        places.append(text.index(scores))
        for part in (f"rewritten of {query}?", f"original of {query}?", f"original of {chosen}?"):
            assert part in texts
    assert places == sorted(places)


def test_many_wrong_decisions_are_cut_and_counted() -> None:
    text = Page(render_report(make_report(make_setting("paraphrased", lift=-1.0)))).text
    assert "Shown: 12 of 20 queries decided wrongly, the clearest first." in text


def test_without_wrong_decisions_the_closest_are_shown() -> None:
    text = Page(render_report(make_report(make_setting("paraphrased", lift=1.0)))).text
    assert "Shown: the 3 closest that were decided rightly." in text


def test_the_proof_is_said_of_every_setting(page: Page, settings) -> None:
    said = (
        "28 dots and self dots, those of 3 pairs drawn at random in every layer, were computed again with plain "
        "autograd, one sample at a time. All agree within the tolerance of 10⁻⁵ of the norms’ product; "
        "the worst is off by 2.1·10⁻⁷."
    )
    assert page.text.count(said) == len(settings)
    assert "Do not rely" not in page.text
    assert "paraphrased_audit.csv" in page.downloads


def test_a_proof_that_fails_warns_and_names_the_worst() -> None:
    setting = make_setting("paraphrased", lift=0.1)
    dots = setting.gradient_audit.filter(quantity="dot").rename({"reference": "dot"})
    wrong = dataclasses.replace(setting, gradient_audit=make_audit(dots, error=0.004))
    html = render_report(make_report(wrong))
    assert (
        "In 1 of them the difference exceeds the tolerance of 10⁻⁵ of the norms’ product; the worst, the dot of query "
        "'s0' and original 's0' in model.embed_tokens.weight, is off by 4·10⁻³. Do not rely"
    ) in Page(html).text
    assert 'class="alarm"' in html
    assert "Do not rely" not in render_report(make_report(wrong, precision="tf32"))


def test_what_is_not_at_hand_is_left_out_and_named() -> None:
    whole = make_setting("paraphrased", lift=0.1)
    bare = SettingReport("imported", whole.accuracy, whole.controls, whole.best_similarity, whole.decisions)
    data = make_report(bare, parameters_per_layer=None, originals=None, exclusions=None)
    page = Page(render_report(data))
    assert (
        "Not at hand and therefore left out: accuracy by layer, similarity of layers to the full "
        "gradient, dots by plain autograd, sizes of the layers, texts of the queries and texts of the originals."
        in page.text
    )
    assert "The text is not at hand." in page.text
    assert "No sample was left out." in page.text
    assert "imported_layers.csv" not in page.downloads


def test_a_report_needs_a_setting() -> None:
    with pytest.raises(ValueError, match="at least one setting"):
        render_report(make_report())


@pytest.mark.slow
def test_in_a_browser(html: str, tmp_path: Path) -> None:
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("chromium is not installed")
    from playwright.sync_api import sync_playwright

    file = tmp_path / "report.html"
    file.write_text(html, encoding="utf-8")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        for width in (1440, 390):
            for scheme in ("light", "dark"):
                page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
                said: list[str] = []
                requests: list[str] = []
                page.on("console", lambda message, said=said: said.append(message.text))
                page.on("pageerror", lambda error, said=said: said.append(str(error)))
                page.on("request", lambda request, requests=requests: requests.append(request.url))
                page.goto(file.as_uri())
                assert page.evaluate("document.documentElement.scrollWidth") <= width
                assert said == []
                assert requests == [file.as_uri()]

        table = page.locator("#paraphrased table", has_text="Null controls")
        column = "rows => rows.map(row => row.cells[1].dataset.value)"

        def shown() -> list[float]:
            return [float(value) for value in table.locator("tbody tr").evaluate_all(column)]

        unsorted = shown()
        heading = table.get_by_role("button", name="accuracy")
        heading.click()
        assert shown() == sorted(unsorted)
        heading.click()
        assert shown() == sorted(unsorted, reverse=True)
        assert table.locator("th").nth(1).get_attribute("aria-sort") == "descending"
        browser.close()
