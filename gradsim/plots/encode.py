"""Figures as PNG bytes for Dagster's metadata and as SVG text for a page."""

import io
import re

import matplotlib
from matplotlib.figure import Figure

from gradsim.plots import style

MARGIN = 0.08
"""Inches around a picture."""


def title_of(figure: Figure) -> str:
    """The finding that a figure states, in one line."""
    return figure.get_suptitle().replace("\n", " ")


def to_png(figure: Figure, dots_per_inch: int = 150) -> bytes:
    """The figure with its title, on white."""
    buffer = io.BytesIO()
    with matplotlib.rc_context(style.STYLE):
        # Tight, so that a long name makes the picture wider where it would be cut off.
        figure.savefig(
            buffer, format="png", dpi=dots_per_inch, facecolor="white", bbox_inches="tight", pad_inches=MARGIN
        )
    return buffer.getvalue()


def to_svg(figure: Figure, name: str) -> str:
    """The figure as an `svg` element for a page that says its title as text.

    Without the title and background; text takes the page's colour and can take its font; colours of the
    palette are CSS variables (`--blue`, ...), so that a dark page can lighten them.

    Args:
        figure: one of `gradsim.plots`.
        name: put before every id, so that several figures can stand on a page.
    """
    buffer = io.StringIO()
    title = figure.get_suptitle()
    figure.suptitle("")
    try:
        with matplotlib.rc_context(style.STYLE):
            figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    finally:
        figure.suptitle(title)
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{name}-", svg)
    return re.sub("|".join(_VARIABLES), lambda found: _VARIABLES[found[0]], svg)


_VARIABLES = {
    style.INK: "currentColor",
    **{
        getattr(style, colour): f"var(--{colour.lower()}, {getattr(style, colour)})"
        for colour in (
            "BLUE",
            "SKY",
            "ORANGE",
            "VERMILION",
            "GREEN",
            "PURPLE",
            "BROWN",
            "MUTED",
            "FAINT",
            "PAPER",
        )
    },
}
