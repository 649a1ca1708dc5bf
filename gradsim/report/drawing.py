"""Figures as shown on the page, with one drawing for wide and one for narrow columns."""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup
from matplotlib.figure import Figure

from gradsim import plots
from gradsim.report.downloads import Download
from gradsim.report.narrow import make_narrow
from gradsim.report.svg import compact

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
    """

    name: str
    title: str
    wide: Markup
    narrow: Markup
    note: str
    downloads: Sequence[Download]


def picture_of(figure: Figure, name: str, number: int, note: str, downloads: Sequence[Download]) -> Picture:
    """Return the wide and the narrow drawing of a figure; this leaves the figure in its narrow layout.

    Args:
        figure: Figure from `gradsim.plots`.
        name: Name, identical for all settings.
        number: Number of the figure, unique on the page.
        note: Caption that explains how to read the figure.
        downloads: Tables that the figure shows.
    """
    title = plots.title_of(figure)
    _wrap_titles(figure)
    wide = compact(plots.to_svg(figure, name), f"wide{number}-")
    make_narrow(figure)
    narrow = compact(plots.to_svg(figure, name), f"narrow{number}-")
    return Picture(name, title, Markup(wide), Markup(narrow), note, downloads)


def _wrap_titles(figure: Figure) -> None:
    """Wrap titles that are wider than their panels, because setting names may be long."""
    for axes in figure.axes:
        title, place = axes.get_title(loc="left"), axes.get_subplotspec()
        letters = LETTERS_ACROSS // (place.get_gridspec().ncols if place else 1)
        if len(title) > letters:
            axes.set_title(textwrap.fill(title, letters), loc="left")
