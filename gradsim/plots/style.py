"""Common style of all figures."""

import textwrap
from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gradsim.analysis.layers import COMPONENTS

# Colour-blind-safe palette of M. Okabe and K. Ito, "Color universal design" (2008).
BLUE = "#0072b2"
SKY = "#56b4e9"
ORANGE = "#e69f00"
VERMILION = "#d55e00"
GREEN = "#009e73"
PURPLE = "#cc79a7"
BROWN = "#8c4a00"
INK = "#1f2328"
MUTED = "#7b828a"
FAINT = "#d5d9de"
PAPER = "#fefefe"

# Markers differ as well as colours, so that components are distinguishable in greyscale.
COMPONENT_COLOURS = {
    "embedding": INK,
    "attention q": BLUE,
    "attention k": SKY,
    "attention v": GREEN,
    "attention o": PURPLE,
    "attention qkv": BLUE,
    "MLP gate": ORANGE,
    "MLP up": VERMILION,
    "MLP gate+up": ORANGE,
    "MLP down": BROWN,
}
COMPONENT_MARKERS = dict(zip(COMPONENTS, "Dos^dXpv<>Ph*8H", strict=True))

# Marker and colour of each projection, in the order of the tables.
PROJECTION_LOOKS = (("D", ORANGE), ("^", GREEN), ("P", PURPLE), ("v", BROWN), ("X", SKY), ("<", MUTED))

WIDTH = 5.8
"""Width of a figure in inches; 557 pixels on the page, legible down to 460."""

STYLE: dict[Any, Any] = {  # matplotlib requires a key type that it does not export
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9,
    "text.color": INK,
    "text.parse_math": False,
    "figure.titlesize": 10.5,
    "figure.titleweight": "bold",
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.labelsize": 9,
    "axes.titlesize": 8.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.8,
    "axes.axisbelow": True,
    "grid.color": FAINT,
    "grid.linewidth": 0.6,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "legend.frameon": False,
    "svg.fonttype": "none",
    "svg.hashsalt": "gradsim",
}

Arguments = ParamSpec("Arguments")


def styled(draw: Callable[Arguments, Figure]) -> Callable[Arguments, Figure]:
    """Return a function that draws in this style and restores matplotlib's settings afterwards."""

    @wraps(draw)
    def draw_styled(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Figure:
        with matplotlib.rc_context(STYLE):
            return draw(*args, **kwargs)

    return draw_styled


def new_figure(title: str, height: float) -> Figure:
    """Return an empty figure with the finding as its title at the top left."""
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    figure.suptitle(textwrap.fill(title, 62, break_on_hyphens=False), x=0.01, ha="left")
    return figure


def bare(axes: Axes) -> None:
    """Remove spines and tick marks, but keep the tick labels."""
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
