"""Figures on the page: small, and legible on a telephone."""

import re
import xml.etree.ElementTree as ET

import pytest

from gradsim import plots
from gradsim.plots import style
from gradsim.report.drawing import compact
from gradsim.report.narrow import NARROW, make_narrow
from gradsim.report.render import PAGE
from gradsim_assets_tests.gradsim.report.studies import make_setting, sizes

pytestmark = pytest.mark.slow

COLUMN = 350
"""Pixels that a telephone of 390 leaves for a figure."""


@pytest.fixture(scope="module")
def drawings(html: str) -> dict[str, list[ET.Element]]:
    """Class of the place -> the drawings there."""
    return {
        place: [
            # HTML needs no name spaces.
            ET.fromstring(svg.replace("<svg ", '<svg xmlns:xlink="x" ', 1).replace("&nbsp;", " "))
            for svg in re.findall(rf'<div class="for-{place}">(<svg.*?</svg>)</div>', html, re.DOTALL)
        ]
        for place in ("wide", "narrow")
    }


def test_every_figure_is_drawn_for_both(drawings) -> None:
    assert len(drawings["wide"]) == len(drawings["narrow"]) > 20
    for place, width in (("wide", style.WIDTH), ("narrow", NARROW)):
        widths = [float(svg.attrib["viewBox"].split()[2]) for svg in drawings[place]]
        assert widths == pytest.approx([72 * width] * len(widths))


def test_letters_are_legible_in_a_narrow_column(drawings) -> None:
    for svg in drawings["narrow"]:
        for text in svg.iter("text"):
            size = re.search(r"font(?:-size)?:[^;]*?([\d.]+)px", text.attrib["style"])
            assert size, text.attrib
            assert float(size[1]) * COLUMN / (72 * NARROW) >= 9, "".join(text.itertext())


def test_what_a_drawing_refers_to_is_in_it(drawings) -> None:
    seen: set[str] = set()
    for svg in [*drawings["wide"], *drawings["narrow"]]:
        ids = {element.attrib["id"] for element in svg.iter() if "id" in element.attrib}
        written = ET.tostring(svg, encoding="unicode")
        assert set(re.findall(r'(?:url\(#|href="#)([^)"]+)', written)) == ids
        assert not ids & seen
        seen |= ids


def test_compact_keeps_what_is_drawn() -> None:
    setting = make_setting("paraphrased", lift=0.1, questions=("decisions",))
    svg = plots.to_svg(plots.source_against_others(setting.tables["decisions"]), "x")
    small = compact(svg, "a")
    assert len(small) < 0.75 * len(svg)
    for tag in ("path", "text", "use", "rect"):
        assert len(re.findall(f"<{tag}[ >]", small)) == len(re.findall(f"<{tag}[ >]", svg))
    texts = re.compile(r"<text[^>]*>([^<]*)</text>")
    assert texts.findall(small) == texts.findall(svg)


def test_panels_beside_each_other_are_stacked() -> None:
    setting = make_setting("paraphrased", lift=0.1, questions=("layer_means",))
    figure = plots.means_of_groups(setting.tables["layer_means"])
    height = figure.get_size_inches()[1]
    make_narrow(figure)
    figure.draw_without_rendering()
    first, second = (axes.get_position() for axes in figure.axes)
    assert second.y1 < first.y0
    assert first.x0 == pytest.approx(second.x0, abs=0.02)
    assert figure.get_size_inches()[1] > 1.5 * height


def test_a_legend_beside_the_axes_moves_below_them() -> None:
    setting = make_setting("paraphrased", lift=0.1, questions=("similarity_to_full_gradient",))
    figure = plots.layers_against_full_gradient(setting.tables["similarity_to_full_gradient"], sizes())
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    make_narrow(figure)
    figure.draw_without_rendering()
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == names
    assert legend.get_window_extent().y1 < figure.axes[0].get_window_extent().y0


def test_the_page_has_the_palette_of_the_figures() -> None:
    tokens = (PAGE / "css/tokens.css").read_text(encoding="utf-8")
    light = tokens[: tokens.index("@media")]
    for name in ("BLUE", "SKY", "ORANGE", "VERMILION", "GREEN", "PURPLE", "BROWN"):
        assert f"--{name.lower()}: {getattr(style, name)};" in light


def _luminance(colour: str) -> float:
    channels = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [channel / 12.92 if channel <= 0.04045 else ((channel + 0.055) / 1.055) ** 2.4 for channel in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_every_background(scheme: str) -> None:
    """By the formula of the Web Content Accessibility Guidelines 2.1, level AA."""
    light, dark = (
        (PAGE / "css/tokens.css").read_text(encoding="utf-8").split("@media screen and (prefers-color-scheme: dark)")
    )
    colours = dict(re.findall(r"--(\w+): (#\w{6});", light))
    if scheme == "dark":
        colours |= dict(re.findall(r"--(\w+): (#\w{6});", dark))
    for text in ("ink", "muted", "accent", "right", "wrong"):
        for background in ("paper", "raised", "sunken", "tint"):
            first, second = sorted((_luminance(colours[text]), _luminance(colours[background])))
            assert (second + 0.05) / (first + 0.05) >= 4.5, (text, background)
