"""The report of the published study: large enough for whatever grows, and small enough to be sent."""

import json
from pathlib import Path

import polars as pl
import pytest

from gradsim import analysis
from gradsim.analysis import QUESTIONS, LayerDots
from gradsim.report import ReportData, SettingReport, render_report

pytestmark = pytest.mark.slow

SETTINGS = ("paraphrased", "model_generated")
DOTS = ("dot_products", "query_self", "original_self")

# What takes long and makes a small table.
LEFT_OUT = {"held_out_selection", "selection_under_budget", "select_or_project", "projection_audit"}

MOST_BYTES = 10_000_000


def setting_of(golden: Path, setting: str, sizes: pl.DataFrame) -> SettingReport:
    tables = {name: pl.read_parquet(golden / f"published/{name}_{setting}.parquet") for name in DOTS}
    similarity = analysis.gradient_similarity(*tables.values())
    tables |= {
        "gradient_similarity": similarity,
        "projected_similarity": similarity.clear().select(
            pl.lit("x").alias("projection"), pl.lit(1, pl.Int64).alias("dimension"), pl.all()
        ),
        "candidates": similarity.select("query_id", "original_id", forced=pl.lit(None, pl.Boolean)),
        "parameters_per_layer": sizes,
    }
    answers: dict[str, pl.DataFrame] = {}
    for name, question in QUESTIONS.items():
        if name not in LEFT_OUT:
            answers[name] = question.answer({**tables, **answers}, 42)
    answers["baseline_differences"] = analysis.baseline_differences(similarity, tables["candidates"], seed=42)
    return SettingReport(setting, answers, None, LayerDots.from_tables(*(tables[name] for name in DOTS)))


@pytest.fixture(scope="module")
def file(golden: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    elements = json.loads((golden / "published/analysis/parameters_per_layer.json").read_text())
    sizes = analysis.parameters_per_layer(
        pl.DataFrame({"layer": list(elements), "parameters": list(elements.values())})
    )
    data = ReportData(
        study="lima_olmo_1b",
        settings=[setting_of(golden, setting, sizes) for setting in SETTINGS],
        provenance={"Model": "amd/AMD-OLMo-1B-SFT"},
        parameters_per_layer=sizes,
        originals=pl.read_parquet(golden / "lima/original.parquet"),
    )
    file = tmp_path_factory.mktemp("golden") / "report.html"
    file.write_text(render_report(data), encoding="utf-8")
    return file


def test_the_page_can_be_sent(file: Path) -> None:
    # The queries' texts are not published; they would take what the originals' take, twice.
    text = file.read_text(encoding="utf-8")
    originals = text.split('data-texts="originals">')[1].index("</script>")
    assert len(text.encode()) + 2 * originals < MOST_BYTES


@pytest.mark.parametrize("size", [(1440, 900), (390, 844)], ids=str)
def test_the_published_study_is_browsed(open_file, golden: Path, file: Path, size: tuple[int, int]) -> None:
    printed = json.loads((golden / "published/analysis/notebook_printed_values.json").read_text())["paraphrased"]
    tab = open_file(file, size, "dark")
    assert tab.evaluate("document.scrollingElement.scrollWidth <= innerWidth")
    listed = tab.locator(".queries .id")
    tab.locator(".chips label", has_text="Wrong").click()
    assert sorted(listed.all_inner_texts()) == printed["wrong_decisions"]
    tab.locator(".chips label", has_text="Most divergent").click()
    assert sorted(listed.all_inner_texts()[:3]) == printed["most_divergent_examples"]
