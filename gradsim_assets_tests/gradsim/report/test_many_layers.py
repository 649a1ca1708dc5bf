"""The page of a model with 272 layers, as many as a small Llama has with its norms."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from matplotlib.collections import QuadMesh

from gradsim import plots
from gradsim.report import SettingReport, render_report
from gradsim_assets_tests.gradsim.report.studies import ids_of, make_report, make_setting, messages, sizes

pytestmark = pytest.mark.slow

PARTS = (
    *(f"self_attn.{name}_proj" for name in "qkvo"),
    *(f"mlp.{name}_proj" for name in ("gate", "up", "down")),
    "input_layernorm",
    "post_attention_layernorm",
)
LAYERS = (
    "model.embed_tokens.weight",
    *(f"model.layers.{block}.{part}.weight" for block in range(30) for part in PARTS),
    "model.norm.weight",
)
WITHOUT_BLOCKS = tuple(f"tensor_{number}.weight" for number in range(len(LAYERS)))

OVERLAPS = """
    root => [...document.querySelectorAll(root)].filter((each) => each.checkVisibility()).flatMap((svg) => {
      const texts = [...svg.querySelectorAll("text")].map((text) => [text.textContent, text.getBoundingClientRect()]);
      const shared = (a, b, from, to) => Math.min(a[to], b[to]) - Math.max(a[from], b[from]);
      return texts.flatMap(([words, a], at) => texts.slice(at + 1)
        .filter(([, b]) => shared(a, b, "left", "right") > 1 && shared(a, b, "top", "bottom") > 3)
        .map(([other]) => `${words} | ${other}`));
    })
"""


def setting_of(layers: Sequence[str], *questions: str) -> SettingReport:
    return make_setting("paraphrased", lift=0.1, n_queries=12, layers=layers, questions=questions)


def report_of(setting: SettingReport, layers: Sequence[str]) -> str:
    return render_report(
        make_report(setting, parameters_per_layer=sizes(layers), originals=messages(ids_of(12), "original"))
    )


@pytest.fixture(scope="module")
def setting() -> SettingReport:
    of_layers = ("accuracy_per_layer", "layer_differences", "similarity_to_full_gradient", "layer_means")
    selections = ("attention_against_mlp", "greedy_by_accuracy", "greedy_by_similarity")
    return setting_of(LAYERS, "accuracy", "controls", "decisions", *of_layers, *selections)


@pytest.fixture(scope="module")
def file(setting, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("many") / "report.html"
    file.write_text(report_of(setting, LAYERS), encoding="utf-8")
    return file


def test_layers_are_cells_by_block_and_component(setting) -> None:
    for draw, name in (
        (plots.accuracy_of_layers, "accuracy_per_layer"),
        (plots.layers_against_full_gradient, "similarity_to_full_gradient"),
    ):
        axes = draw(setting.tables[name], sizes(LAYERS)).axes[0]
        (mesh,) = axes.collections
        assert isinstance(mesh, QuadMesh)
        assert np.ma.count(np.ma.asarray(mesh.get_array())) == len(LAYERS)
        rows = [label.get_text() for label in axes.get_yticklabels()]
        assert rows[:7] == [
            "attention q", "attention k", "attention v", "attention o", "MLP gate", "MLP up", "MLP down",
        ]  # fmt: skip
        assert len(rows) == len(PARTS) + 2


@pytest.mark.parametrize("size", [(1440, 900), (390, 844)], ids=str)
def test_no_labels_overlap_and_the_page_does_not_scroll_sideways(open_file: Callable, file: Path, size) -> None:
    page = open_file(file, size)
    page.evaluate("for (const each of document.querySelectorAll('details')) each.open = true")
    assert page.locator("#layers figure").count() > 6
    assert page.locator(".by-layer figcaption").all_inner_texts() == [
        "attention q", "attention k", "attention v", "attention o", "MLP gate", "MLP up", "MLP down", "norm",
        "outside the blocks",
    ]  # fmt: skip
    for root in ("#layers .drawing svg", ".by-layer svg"):
        assert page.evaluate(OVERLAPS, root) == [], root
    assert page.evaluate("document.scrollingElement.scrollWidth <= innerWidth")


@pytest.mark.parametrize("size", [(1440, 900), (390, 844)], ids=str)
def test_charts_are_enlarged_within_the_page(open_file: Callable, file: Path, size) -> None:
    page = open_file(file, size)
    figure = page.locator("#layers figure").first
    drawing, zoom = figure.locator(".drawing"), figure.get_by_role("checkbox", name="Enlarge")
    drawn = "drawing => [...drawing.querySelectorAll('svg')].find((svg) => svg.checkVisibility()).clientWidth"
    before = drawing.evaluate(drawn)
    zoom.focus()
    page.keyboard.press("Space")
    assert drawing.evaluate(drawn) >= 1.9 * before
    assert drawing.evaluate("drawing => drawing.scrollWidth > drawing.clientWidth")
    assert page.evaluate("document.scrollingElement.scrollWidth <= innerWidth")
    panels = page.locator(".by-layer svg")
    before = panels.first.evaluate("svg => svg.clientHeight")
    page.locator(".layers-view .zoom input").check()
    assert panels.first.evaluate("svg => svg.clientHeight") == 2 * before
    edges = panels.evaluate_all("panels => panels.map(panel => panel.getBoundingClientRect().left)")
    assert len(set(edges)) == 1, "below each other"


def test_a_long_chart_scrolls_within_the_page(open_file: Callable, tmp_path: Path) -> None:
    setting = setting_of(WITHOUT_BLOCKS, "accuracy", "controls", "decisions", "accuracy_per_layer")
    file = tmp_path / "report.html"
    file.write_text(report_of(setting, WITHOUT_BLOCKS), encoding="utf-8")
    drawing = open_file(file).locator("#layers .drawing").first
    assert drawing.evaluate("drawing => drawing.clientHeight") <= 900
    assert drawing.evaluate("drawing => drawing.scrollHeight") > 3000
