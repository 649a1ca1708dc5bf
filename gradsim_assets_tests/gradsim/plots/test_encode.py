"""Every figure as PNG and as SVG."""

import re
import xml.etree.ElementTree as ET

import matplotlib as mpl
import pytest
from matplotlib._pylab_helpers import Gcf
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.text import Text

from gradsim import analysis, plots
from gradsim.plots import style
from gradsim_assets_tests.gradsim.plots import frames

pytestmark = pytest.mark.slow


def test_png(figures: dict[str, Figure]) -> None:
    for figure in figures.values():
        png = plots.to_png(figure, 50)
        assert png.startswith(b"\x89PNG\r\n")
        # A little wider or narrower, by what stands at the edges.
        assert int.from_bytes(png[16:20], "big") == pytest.approx(50 * style.WIDTH, rel=0.1)
    larger = plots.to_png(figures["full"], 100)
    assert int.from_bytes(larger[16:20], "big") == pytest.approx(100 * style.WIDTH, rel=0.1)


def test_every_figure_has_a_sentence_as_title(figures: dict[str, Figure]) -> None:
    for figure in figures.values():
        title = plots.title_of(figure)
        assert len(title.split()) > 4
        assert not title.endswith(".")
        assert "  " not in title


def test_no_line_ends_before_a_per_cent_sign(figures: dict[str, Figure]) -> None:
    for figure in figures.values():
        plots.to_png(figure, 50)
        for text in figure.findobj(Text):
            assert not re.search(r"\d %", text.get_text()), text.get_text()


def test_titles_keep_hyphens() -> None:
    pairs = frames.pairs(n_queries=4, lift=9.0)
    name = "model-generated-and-paraphrased"  # a line ends within it
    figure = plots.accuracy_of_methods({name: analysis.accuracy(pairs)}, {name: analysis.controls(pairs)})
    assert name in plots.title_of(figure)


def test_svgs_share_a_page(figures: dict[str, Figure]) -> None:
    ids: list[str] = []
    for name, figure in figures.items():
        title = plots.title_of(figure)
        svg = plots.to_svg(figure, name)
        root = ET.fromstring(svg)
        own = {element.attrib["id"] for element in root.iter() if "id" in element.attrib}
        referred = set(re.findall(r'(?:url\(#|href="#)([^)"]+)', svg))
        assert referred <= own
        ids += own
        # The page says the title, and its colours and fonts are the page's.
        assert plots.title_of(figure) == title
        assert title not in " ".join(root.itertext())
        assert "currentColor" in svg
        assert style.INK not in svg
        assert not re.search(r"""(?:href|src)=["'](?!#|data:)""", svg)
    assert len(set(ids)) == len(ids)


def test_svg_colours_are_variables_with_their_colour_as_default(figures: dict[str, Figure]) -> None:
    svg = plots.to_svg(figures["accuracy"], "accuracy")
    for variable, default in re.findall(r"var\(--(\w+), (#\w+)\)", svg):
        assert default == to_hex(getattr(style, variable.upper()))
    assert {"blue", "vermilion"} <= set(re.findall(r"var\(--(\w+)", svg))


def test_svg_is_reproducible(figures: dict[str, Figure]) -> None:
    layers = frames.layer_names(2)
    again = plots.accuracy_of_layers(frames.accuracy_per_layer(layers), frames.parameters(layers))
    assert plots.to_svg(figures["few-layers"], "x") == plots.to_svg(again, "x")
    assert plots.to_svg(again, "x") == plots.to_svg(again, "x")


def test_names_are_text_not_markup_or_formulas() -> None:
    pairs = frames.pairs(n_queries=2, n_candidates=2)
    name = "<b>$x_1$</b>"
    figure = plots.accuracy_of_methods({name: analysis.accuracy(pairs)}, {name: analysis.controls(pairs)})
    text = " ".join(ET.fromstring(plots.to_svg(figure, "x")).itertext())
    assert "<b>$x-1$</b>, 2 queries" in text


def test_drawing_leaves_matplotlib_as_it_was() -> None:
    before = dict(mpl.rcParams)
    pairs = frames.pairs()
    figure = plots.source_against_others(analysis.decisions(pairs))
    plots.to_svg(figure, "x")
    plots.to_png(figure)
    assert dict(mpl.rcParams) == before
    assert Gcf.get_all_fig_managers() == []
