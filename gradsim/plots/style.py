"""The one style of all figures."""

import textwrap
from collections.abc import Callable
from typing import Any, ParamSpec

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gradsim.analysis.layers import COMPONENTS

# The palette of M. Okabe and K. Ito, "Color universal design" (2008), told apart by the colour-blind.
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

# Shapes differ as well as colours, so that grey prints tell components apart.
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

# A marker and a colour for each projection, in the order of the tables.
PROJECTION_LOOKS = (("D", ORANGE), ("^", GREEN), ("P", PURPLE), ("v", BROWN), ("X", SKY), ("<", MUTED))

WIDTH = 5.8
"""Width of a figure in inches: 557 pixels of a page, legible from 460."""

STYLE: dict[Any, Any] = {  # matplotlib wants its own key type, which it does not export
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
    """Lets a function draw in this style, and leaves matplotlib's settings as they were."""

    def draw_styled(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Figure:
        with matplotlib.rc_context(STYLE):
            return draw(*args, **kwargs)

    return draw_styled


def new_figure(title: str, height: float) -> Figure:
    """An empty figure that states its finding at the top left."""
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    figure.suptitle(textwrap.fill(title, 62, break_on_hyphens=False), x=0.01, ha="left")
    return figure


def bare(axes: Axes) -> None:
    """Takes away spines and tick marks; labels stay."""
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
