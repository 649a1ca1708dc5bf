"""Figures as the page shows them: one drawing for columns of a page, one for a telephone."""

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
"""So many bold letters of a panel's title fit across a drawing for columns of a page."""


@dataclass(frozen=True)
class Picture:
    """A figure.

    Attributes:
        name: the same for all settings.
        title: the finding.
        wide: SVG without the title.
        narrow: the same for narrow columns.
        note: how to read it.
        downloads: the tables behind it.
    """

    name: str
    title: str
    wide: Markup
    narrow: Markup
    note: str
    downloads: Sequence[Download]


def picture_of(figure: Figure, name: str, number: int, note: str, downloads: Sequence[Download]) -> Picture:
    """Draws a figure twice; it stays as narrow as it is drawn last.

    Args:
        figure: one of `gradsim.plots`.
        name: the same for all settings.
        number: of the picture on the page.
        note: how to read it.
        downloads: the tables behind it.
    """
    title = plots.title_of(figure)
    _wrap_titles(figure)
    wide = compact(plots.to_svg(figure, name), f"wide{number}-")
    make_narrow(figure)
    narrow = compact(plots.to_svg(figure, name), f"narrow{number}-")
    return Picture(name, title, Markup(wide), Markup(narrow), note, downloads)


def _wrap_titles(figure: Figure) -> None:
    """Breaks titles that are wider than their panels: names of settings may be long."""
    for axes in figure.axes:
        title, place = axes.get_title(loc="left"), axes.get_subplotspec()
        letters = LETTERS_ACROSS // (place.get_gridspec().ncols if place else 1)
        if len(title) > letters:
            axes.set_title(textwrap.fill(title, letters), loc="left")
