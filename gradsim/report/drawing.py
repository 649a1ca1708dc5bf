"""Figures as shown on the page, with one drawing for wide and one for narrow columns."""

import re
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup
from matplotlib.figure import Figure

from gradsim import plots
from gradsim.report.downloads import Download
from gradsim.report.narrow import make_narrow

TALLEST = 14
"""Height in inches beyond which a figure scrolls within the page."""

LETTERS_ACROSS = 72
"""Bold characters that fit across a wide drawing."""


@dataclass(frozen=True)
class Picture:
    """Figure on the page.

    Attributes:
        name: Name, identical for all settings.
        title: Finding that the figure shows.
        wide: SVG for wide columns, without title.
        narrow: SVG for narrow columns, without title.
        note: Caption that explains how to read the figure.
        downloads: Tables that the figure shows.
        folded: Whether only the title is shown at first.
        tall: Whether the drawing scrolls within the page.
    """

    name: str
    title: str
    wide: Markup
    narrow: Markup
    note: str
    downloads: Sequence[Download]
    folded: bool
    tall: bool


def picture_of(
    figure: Figure, name: str, number: int, note: str, downloads: Sequence[Download], *, folded: bool
) -> Picture:
    """Return the wide and the narrow drawing of a figure; this leaves the figure in its narrow layout."""
    title = plots.title_of(figure)
    tall = bool(figure.get_size_inches()[1] > TALLEST)
    _wrap_titles(figure)
    wide = compact(plots.to_svg(figure, name), f"wide{number}-")
    make_narrow(figure)
    narrow = compact(plots.to_svg(figure, name), f"narrow{number}-")
    return Picture(name, title, Markup(wide), Markup(narrow), note, downloads, folded, tall)


def _wrap_titles(figure: Figure) -> None:
    """Wrap titles that are wider than their panels, because setting names may be long."""
    for axes in figure.axes:
        title, place = axes.get_title(loc="left"), axes.get_subplotspec()
        letters = LETTERS_ACROSS // (place.get_gridspec().ncols if place else 1)
        if len(title) > letters:
            axes.set_title(textwrap.fill(title, letters), loc="left")


_TAG = re.compile(r"<[^>]+>")
_SAYS_NOTHING = re.compile(r' xmlns(?::xlink)?="[^"]*"| transform="rotate\(-?0 [^"]*"|font-family: [^;"]+;? ?')


def compact(svg: str, prefix: str) -> str:
    """Return an SVG minified for use as an element of an HTML page, with a precision of 0.01 points.

    Removes comments, the style sheet, fallback colours of CSS variables (the page defines them), unreferenced ids,
    groups without attributes, namespaces, font families and whitespace.

    Args:
        svg: Output of `gradsim.plots.to_svg`.
        prefix: Prefix of the remaining, numbered ids.
    """
    svg = re.sub(r"<!--.*?-->|<style.*?</style>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"var\((--\w+), #\w+\)", r"var(\1)", svg)
    referred = dict.fromkeys(re.findall(r'(?:url\(#|href="#)([^)"]+)', svg))
    short = {name: f"{prefix}{number}" for number, name in enumerate(referred)}
    svg = re.sub(r' id="([^"]+)"', lambda found: f' id="{short[found[1]]}"' if found[1] in short else "", svg)
    svg = re.sub(r'(url\(#|href="#)([^)"]+)', lambda found: found[1] + short[found[2]], svg)
    svg = _without_plain_groups(_TAG.sub(lambda tag: _compact_tag(tag[0]), svg))
    return re.sub(r">\s+<", "><", svg).replace("<defs></defs>", "").strip()


def _compact_tag(tag: str) -> str:
    tag = _SAYS_NOTHING.sub("", " ".join(tag.split()))
    tag = re.sub(r"(\.\d\d)\d+", r"\1", tag)
    tag = re.sub(r"([:;]) ", r"\1", tag)
    return re.sub(r' d="[^"]*"', lambda path: " d" + re.sub(r" ?([A-Za-z]) ?", r"\1", path[0][2:]), tag)


def _without_plain_groups(svg: str) -> str:
    """Return the SVG without the tags of groups that have no attributes; keep their content."""
    plain: list[bool] = []

    def kept(tag: re.Match[str]) -> str:
        text = tag[0]
        if text == "</g>":
            return "" if plain.pop() else text
        if not re.match(r"<g[ />]", text):
            return text
        if text.endswith("/>"):
            return ""
        plain.append(text == "<g>")
        return "" if plain[-1] else text

    return _TAG.sub(kept, svg)
