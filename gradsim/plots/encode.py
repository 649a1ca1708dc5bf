"""Conversion of figures to PNG for Dagster metadata and to SVG for HTML pages."""

import io
import re

import matplotlib
from matplotlib.figure import Figure

from gradsim.plots import style

MARGIN = 0.08
"""Margin around a PNG, in inches."""


def title_of(figure: Figure) -> str:
    """Return the title of a figure on one line."""
    return figure.get_suptitle().replace("\n", " ")


def to_png(figure: Figure, dots_per_inch: int = 150) -> bytes:
    """Return a figure as PNG bytes, including its title, on a white background."""
    buffer = io.BytesIO()
    with matplotlib.rc_context(style.STYLE):
        # A tight bounding box widens the image instead of clipping long names.
        figure.savefig(
            buffer, format="png", dpi=dots_per_inch, facecolor="white", bbox_inches="tight", pad_inches=MARGIN
        )
    return buffer.getvalue()


def to_svg(figure: Figure, name: str) -> str:
    """Return a figure as an `svg` element for a page that shows the title as text.

    The element has no title and no background. Text inherits the page's colour and can inherit its font. Palette
    colours become CSS variables (`--blue`, ...), which a dark theme can override.

    Args:
        figure: Figure from `gradsim.plots`.
        name: Prefix of every id, unique on the page.
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
        for colour in ("BLUE", "SKY", "ORANGE", "VERMILION", "GREEN", "PURPLE", "BROWN", "MUTED", "FAINT", "PAPER")
    },
}
