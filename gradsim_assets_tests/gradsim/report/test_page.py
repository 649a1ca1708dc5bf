"""What the page says, and what it must not do."""

import base64
import dataclasses
import hashlib
import json
import re

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from gradsim.report import SettingReport, render_report
from gradsim.report.answer import alone_of, unanswered
from gradsim.report.headline import headline_of, leads_of
from gradsim_assets_tests.gradsim.report.studies import (
    LAYERS,
    LEAST,
    NASTY,
    Page,
    audited,
    make_report,
    make_setting,
    sizes,
)

pytestmark = pytest.mark.slow


def page_of(*settings: SettingReport, **changes: object) -> Page:
    return Page(render_report(make_report(*settings, **changes)))


def few(name: str = "paraphrased", **changes) -> SettingReport:
    """A setting with few tables."""
    return make_setting(name, questions=LEAST, **changes)


def test_nothing_is_fetched(page: Page) -> None:
    assert page.addresses
    assert all(address.startswith(("#", "data:")) for address in page.addresses)
    assert not {"link", "iframe", "object"} & set(page.tags)


def test_only_the_pages_own_script_may_run(html: str, page: Page) -> None:
    (script,) = re.findall(r'<script type="module">(.*?)</script>', html, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]+)"', html)
    assert policy
    assert "default-src 'none'" in policy[1]
    assert f"script-src 'sha256-{digest}'" in policy[1]
    kinds = {attributes["type"] for attributes in page.scripts}
    assert kinds == {"module", "application/json", "application/gzip"}


def test_every_text_of_the_data_is_escaped(html: str, page: Page) -> None:
    assert "<script>alert" not in html
    assert "<img src" not in html
    # Study, description, provenance and exclusions say it all the same.
    assert page.text.count('<script>alert("x")</script>') >= 5


def test_links_lead_somewhere_and_ids_are_unique(page: Page) -> None:
    assert len(set(page.ids)) == len(page.ids)
    targets = {address[1:] for address in page.addresses if address.startswith("#")}
    assert targets <= set(page.ids)


def test_findings_come_first_and_sections_in_order(page: Page, settings) -> None:
    said = [
        f"{headline_of(settings)}.",
        *(f"{lead.label}: {lead.value} {lead.uncertainty}" for lead in leads_of(settings[0])),
        "Select or project?",
        "Accuracy and null controls",
        "A gradient can be compressed",
        "Which layers?",
        "Projections and theory A projected cosine",
        "Retrieval How high does",
        "Transfer between settings",
        "Gradient audit Do the stored",
        "Queries and their candidates",
        "The model How are",
        "Method How is it measured?",
        "Provenance How the results",
        "Exclusions",
    ]
    places = [page.text.index(" ".join(words.split())) for words in said]
    assert places == sorted(places)


def test_every_figure_has_its_numbers(html: str) -> None:
    figures = html.split("<figure data-key=")[1:]
    assert len(figures) > 20
    for figure in figures:
        head = figure[: figure.index("</figure>")]
        assert head.count("<svg") == 2
        assert "data-csv=" in head, head[:60]


def test_every_button_has_its_table_unrounded(page: Page, settings) -> None:
    assert {attributes["data-download"] for attributes in page.scripts if "data-download" in attributes} == page.buttons
    for setting in settings:
        for name, table in setting.tables.items():
            columns = [
                column for column, dtype in table.schema.items() if dtype not in {pl.Boolean, pl.List(pl.String)}
            ]
            file = f"{setting.setting}_{name}"
            if file in page.buttons:
                given = page.table(file).select(columns)
                expected = table.select(columns)
                # A column without a value has no type in CSV, and a group of blocks looks like a number.
                expected = expected.with_columns(
                    pl.col(pl.Enum, pl.String).cast(pl.String), pl.col(pl.Null).cast(pl.String)
                )
                given = given.with_columns(
                    pl.col(column).cast(dtype) for column, dtype in expected.schema.items() if column in given.columns
                )
                assert_frame_equal(given, expected, check_exact=True)
        layers = page.table(f"{setting.setting}_layers")
        assert layers["accuracy"].to_list() == setting.tables["accuracy_per_layer"]["accuracy"].to_list()
        assert layers["similarity_low"].to_list() == setting.tables["similarity_to_full_gradient"]["low"].to_list()
        assert layers["parameters"].to_list() == [20] * len(LAYERS)
    selected = settings[0].tables["selection_under_budget"]["selected"].list.join(" ")
    assert page.table("paraphrased_selection_under_budget")["selected"].to_list() == selected.to_list()
    assert page.table("exclusions")["reason"].to_list() == [NASTY]
    assert page.table("truncations")["kept"].to_list() == ["first 8 of 11 tokens"]


def test_a_table_that_is_too_large_is_named_instead(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gradsim.report.downloads.MOST_BYTES", 500)
    page = page_of(few(lift=0.1))
    assert "paraphrased_decisions" not in page.buttons
    assert "decisions: too large for this page, see the study’s folder" in page.text
    assert "paraphrased_controls" in page.buttons


def test_forced_queries_are_reported_apart(page: Page) -> None:
    assert "For 5 queries, BM25 did not list the true source" in page.text
    assert "It is not recorded for which queries the true source was forced." in page.text


@pytest.mark.parametrize(
    ("lift", "verdict"),
    [(1.0, "above chance"), (0.0, "not significantly different from chance"), (-1.0, "below chance")],
)
def test_verdict_against_chance(lift: float, verdict: str) -> None:
    assert f"That is {verdict} (33.3 %)" in page_of(few(lift=lift)).text


def test_the_proof_is_said_of_every_setting(page: Page, settings) -> None:
    said = (
        f"{7 * len(LAYERS)} inner products and squared norms (3 pairs in every layer) were computed again with plain "
        "autograd, one sample at a time. The pairs include the longest and the most memorised sample. All agree within "
        "the tolerance of 10⁻⁵ relative to the product of the norms; the largest error is 2.1·10⁻⁷."
    )
    assert page.text.count(said) == len(settings)
    assert "Do not rely" not in page.text


def test_a_proof_that_fails_warns_and_names_the_worst() -> None:
    wrong = audited(few(lift=0.1), error=0.004)
    html = render_report(make_report(wrong))
    assert (
        "The error of 1 exceeds the tolerance of 10⁻⁵ relative to the product of the norms; the largest, 4·10⁻³, is "
        "that of the dot of query 's0' and original 's0' in model.embed_tokens.weight. Do not rely"
    ) in Page(html).text
    assert 'class="alarm"' in html
    assert "Do not rely" not in render_report(make_report(wrong, precision="tf32"))


def test_the_headline_of_wrong_numbers_says_so() -> None:
    right, wrong = audited(few(lift=0.1)), dataclasses.replace(audited(few(lift=0.1), 0.004), setting="model_generated")
    for settings, whose in (
        ((wrong,), "this study’s numbers"),
        ((right, wrong), "the numbers of model-generated queries"),
    ):
        html = render_report(make_report(*settings))
        assert f'<h1 class="wrong">Do not rely on {whose}: the audit failed.</h1>' in html
        assert html.count("<h1") == 1
        assert (
            "Model-generated: plain autograd differs from 1 of 91 numbers by more than 1e-05 of the norms' product; "
            "the worst, the dot of query 's0' and original 's0' in model.embed_tokens.weight, is off by 0.004."
        ) in Page(html).text
    assert '<h1 class="wrong">' not in render_report(make_report(right))


def test_layers_that_hold_only_rounding_are_named_and_left_out() -> None:
    noise = ("model.layers.1.mlp.up_proj.weight", "model.layers.0.self_attn.q_proj.weight")
    questions = (*LEAST, "accuracy_per_layer")
    marked = make_setting("paraphrased", lift=0.1, n_queries=4, questions=questions, noise=noise[:1])
    page = page_of(marked)
    assert "1 layer is left out because its gradient is only rounding noise: 1.mlp.up_proj." in page.text
    assert page.table("paraphrased_layers").height == len(LAYERS) - 1
    both = make_setting("model_generated", lift=0.1, n_queries=4, questions=questions, noise=noise)
    page = page_of(marked, both)
    assert (
        "2 layers are left out because their gradients are only rounding noise: 0.self_attn.q_proj and 1.mlp.up_proj."
        in page.text
    )
    shown = len(json.loads(re.findall(r'id="layers-data">(.*?)</script>', page.html)[0]))
    assert shown == len(LAYERS) - 2, "only those of both settings, so that the pairs of both fit them"
    for setting in ("paraphrased", "model_generated"):
        pairs = len(page.pairs(setting)["candidate"])
        assert len(page.unpacked("similarities", setting)) == 2 * shown * pairs
    assert "only rounding noise" not in page_of(few(lift=0.1)).text


def test_what_is_not_at_hand_is_left_out_and_named() -> None:
    whole = few("imported", lift=0.1)
    bare = SettingReport("imported", whole.tables)
    page = page_of(bare, parameters_per_layer=None, originals=None, exclusions=None, description="")
    assert "the answer length control" in page.text[page.text.index("Not available") :]
    for absent in ("accuracy by layer", "gradient audit", "query texts", "original texts"):
        assert absent in page.text[page.text.index("Not available") :]
    assert "Exclusions are not recorded." in page.text
    assert not {"layers", "projections", "transfer", "proof", "model"} & set(page.ids)
    assert {"accuracy", "retrieval", "queries", "method"} <= set(page.ids)
    assert "browser" not in page.ids


def test_sizes_may_be_unknown(settings) -> None:
    unknown = sizes().with_columns(parameters=pl.lit(None, pl.Int64), share=pl.lit(None, pl.Float64))
    page = page_of(settings[0], parameters_per_layer=unknown)
    assert "layers" in page.ids
    assert "model" not in page.ids
    assert "layer sizes" in page.text[page.text.index("Not available") :]


def test_where_nothing_was_projected_the_page_says_so(settings) -> None:
    contests = settings[0].tables["select_or_project"].clear()
    setting = dataclasses.replace(settings[0], tables=settings[0].tables | {"select_or_project": contests})
    page = page_of(setting)
    assert (
        "No answer is available. There are no selected layers to compare with gaussian (40 dimensions): the"
        in page.text
    )
    assert "answer-title" not in page.ids


@pytest.mark.parametrize(
    ("dimensions", "known", "said"),
    [
        ((), True, ["Nothing was projected."]),
        (
            (40,),
            False,
            ["There are no selected layers to compare with gaussian (40 dimensions): layer sizes are unknown."],
        ),
        (
            (8,),
            True,
            [
                "There are no selected layers to compare with gaussian (8 dimensions): it has fewer dimensions than "
                "the smallest layer has parameters (20)."
            ],
        ),
        (
            (8, 12, 40),
            True,
            [
                "There are no selected layers to compare with gaussian (8 dimensions) and gaussian (12 dimensions): "
                "they have fewer dimensions than the smallest layer has parameters (20).",
                "There are no selected layers to compare with gaussian (40 dimensions): the comparison is not "
                "available.",
            ],
        ),
    ],
    ids=["none", "no sizes", "small", "both"],
)
def test_why_nothing_stands_beside_a_projection(dimensions, known: bool, said: list[str]) -> None:
    setting = few(lift=0.1)
    methods = ["full_gradient", "bm25", *(f"gaussian-{dimension}" for dimension in dimensions)]
    accuracy = pl.DataFrame({"method": methods})
    setting = SettingReport("paraphrased", {**setting.tables, "accuracy": accuracy})
    parameters = sizes() if known else None
    assert alone_of(setting, parameters) == (said if dimensions else [])
    whole = make_report(setting, parameters_per_layer=parameters)
    assert unanswered(whole) == f"No answer is available. {' '.join(said)}"


def test_projections_that_are_compared_are_not_named_again(settings, page: Page) -> None:
    assert alone_of(settings[0], make_report().parameters_per_layer) == []
    assert "There are no selected layers to compare with" not in page.text


def test_one_of_many() -> None:
    setting = make_setting("paraphrased", lift=0.2, n_queries=1, n_candidates=1, layers=["w"], forced=1)
    page = page_of(setting, parameters_per_layer=None)
    assert "for 100.0 % of 1 paraphrased query (" in page.text.replace("\u00a0", " ")
    assert "For 1 query, BM25 did not list" in page.text
    assert "The only layer as a table" in page.text


@pytest.mark.parametrize(
    "shape",
    [
        {"n_queries": 1, "n_candidates": 1},
        {"layers": ["w"]},
        {"layers": ["first.weight", "second.weight"]},
        {"n_queries": 3, "n_candidates": 2},
    ],
    ids=["one query, one candidate", "one layer", "no blocks", "few of all"],
)
def test_small_studies(shape) -> None:
    setting = make_setting("paraphrased", lift=0.2, **shape)
    layers = shape.get("layers", LAYERS)
    parameters = sizes().head(len(layers)).with_columns(layer=pl.Series(layers))
    if "layers" in shape:
        parameters = parameters.with_columns(component=pl.lit("other"), block=pl.lit(None, pl.Int32))
    page = page_of(setting, parameters_per_layer=parameters)
    assert {"accuracy", "retrieval", "queries"} <= set(page.ids)


def test_ties_everywhere() -> None:
    setting = make_setting("paraphrased", lift=0.0, n_queries=4)
    assert setting.layer_dots
    flat = dataclasses.replace(setting.layer_dots, dots=0 * setting.layer_dots.dots)
    tied = setting.tables["decisions"].with_columns(credit=pl.lit(1 / 3), margin=pl.lit(0.0))
    page = page_of(SettingReport("paraphrased", {**setting.tables, "decisions": tied}, None, flat))
    assert page.pairs("paraphrased")["credit"] == [pytest.approx(1 / 3, abs=1e-4)] * 4


def test_the_same_data_give_the_same_page(data, html: str) -> None:
    assert render_report(data) == html


def test_a_report_needs_a_setting() -> None:
    with pytest.raises(ValueError, match="at least one setting"):
        render_report(make_report())


def test_texts_in_doubt_are_counted(settings) -> None:
    setting = settings[0]
    assert setting.queries is not None
    none: list[list[str]] = [[], []]
    faults = [[["executed"], []], [["executed", "length"], ["refused"]], *([none] * (setting.queries.height - 2))]
    known = setting.queries.with_columns(pl.Series("faults", faults, dtype=pl.List(pl.List(pl.String))))
    page = page_of(dataclasses.replace(setting, queries=known))
    assert page.table("faulty-texts").rows() == [
        ("paraphrased", "declined instead of rewritten", 0, 1),
        ("paraphrased", "carried out or answered instead of rewritten", 2, 0),
        ("paraphrased", "much shorter or much longer than before", 1, 0),
    ]
    clean = known.with_columns(pl.Series("faults", [none] * known.height, dtype=pl.List(pl.List(pl.String))))
    assert "No faults were found: no text is empty" in page_of(dataclasses.replace(setting, queries=clean)).text
    assert "Possible text faults" not in page_of(setting).text, "nobody looked"
