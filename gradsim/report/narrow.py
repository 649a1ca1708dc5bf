"""Narrow layout of figures for phone screens."""

import textwrap

import matplotlib
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.text import Annotation
from matplotlib.ticker import FixedLocator

from gradsim.plots.grid import OUTSIDE
from gradsim.plots.style import STYLE

NARROW = 3.7
"""Width in inches; at 350 pixels, the width of a phone column, 7-point text is 9 pixels high."""

LETTERS_ACROSS = 44
LETTERS_OF_NAME = 18
"""Characters that fit across a narrow drawing, and maximum characters per line of a name beside an axis."""

BOLD = 0.8
"""Fraction of the characters that fit in bold."""

BESIDE = 0.07
"""Offset of text beside the axes, as a fraction of their width."""

STACKED = 0.9
"""Height factor of panels that take the full width."""

ROOM_FOR_LABELS = 1.25
"""Factor on the upper axis limit to make room for labels at the ends of bars."""

INCHES_A_LINE = 0.17


def make_narrow(figure: Figure) -> None:
    """Change the layout of a figure for a narrow column: stack panels and wrap long texts."""
    height = figure.get_size_inches()[1] * _stack_panels(figure)
    with matplotlib.rc_context(STYLE):
        lines = sum(_legend_below(figure, legend) for legend in figure.legends)
        for axes in figure.axes:
            lines += _wrap_texts(axes)
            if axes.containers:
                axes.set_xlim(right=ROOM_FOR_LABELS * axes.get_xlim()[1])
            if any(isinstance(collection, QuadMesh) for collection in axes.collections):
                _thin_heat_map(axes)
    figure.set_size_inches(NARROW, height + lines * INCHES_A_LINE)


def _stack_panels(figure: Figure) -> float:
    """Stack side-by-side panels in one column and return the factor on the figure's height."""
    places = {axes: place for axes in figure.axes if (place := axes.get_subplotspec())}
    grid = next((place.get_gridspec() for place in places.values() if place.get_gridspec().ncols > 1), None)
    if grid is None:
        return 1.0
    panels = [axes for axes, place in places.items() if place.get_gridspec() is grid and axes.get_visible()]
    column = figure.add_gridspec(len(panels), 1)
    for position, axes in enumerate(panels):
        axes.set_subplotspec(column[position])
        axes.tick_params(labelleft=True)
    return STACKED * len(panels) / grid.nrows


def _wrap_texts(axes: Axes) -> int:
    """Wrap long names, titles and labels, and return the number of added lines."""
    names: list[str] = []
    lines = 0
    if isinstance(axes.yaxis.get_major_locator(), FixedLocator):
        before = [label.get_text() for label in axes.get_yticklabels()]
        names = [_wrapped(name, LETTERS_OF_NAME) for name in before]
        axes.set_yticks(axes.get_yticks(), names)
        lines = len(names) * (_most_breaks(names) - _most_breaks(before))
    widest = max((len(line) for name in names for line in name.split("\n")), default=0)
    axes.xaxis.label.set_text(_wrapped(axes.get_xlabel(), LETTERS_ACROSS))
    title = _wrapped(" ".join(axes.get_title(loc="left").split()), int(BOLD * (LETTERS_ACROSS - widest)))
    axes.set_title(title, loc="left")
    for text in axes.texts:
        if isinstance(text, Annotation) and text.arrow_patch is None and text.get_position()[0] > 1:
            _move_away(text)
    return lines + axes.get_xlabel().count("\n") + title.count("\n")


def _most_breaks(names: list[str]) -> int:
    return max((name.count("\n") for name in names), default=0)


def _move_away(text: Annotation) -> None:
    """Move text beside the axes away from markers at their edge."""
    x, y = text.get_position()
    if isinstance(text.anncoords, tuple) and text.anncoords[0] == "axes fraction":
        text.set_position((x + BESIDE, y))


def _thin_heat_map(axes: Axes) -> None:
    """Remove what does not fit into narrow cells: long numbers, every other block, and the label outside the blocks."""
    for text in list(axes.texts):
        if len(text.get_text()) > 2:
            text.remove()
    ticks = zip(axes.get_xticks(), (label.get_text() for label in axes.get_xticklabels()), strict=True)
    blocks = [(place, block) for place, block in ticks if block != OUTSIDE][::2]
    axes.set_xticks([place for place, _ in blocks], [block for _, block in blocks])


def _legend_below(figure: Figure, legend: Legend) -> int:
    """Move a legend below the axes and return its number of lines."""
    labels = [text.get_text() for text in legend.get_texts()]
    columns = max(1, LETTERS_ACROSS // (max(map(len, labels), default=0) + 6))
    handles = [handle for handle in legend.legend_handles if isinstance(handle, Artist)]
    legend.remove()
    figure.legend(handles, labels, loc="outside lower center", ncols=columns, handletextpad=0.4, columnspacing=1.2)
    return -(-len(labels) // columns)


def _wrapped(text: str, letters: int) -> str:
    return textwrap.fill(text, letters) if text else text
