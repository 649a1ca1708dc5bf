"""How near projections come to what they estimate, and to the full gradient."""

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator

from gradsim.plots.labels import count, listed, power_of_ten
from gradsim.plots.style import BLUE, MUTED, ORANGE, PAPER, new_figure, styled

SMALLEST_SHOWN = 1e-16
"""Less than that is rounding; zero has no place on a logarithmic axis."""

SMALLEST_IN_FULL = 1e-3
"""Smaller numbers are written as powers of ten."""

FEWEST_DECADES = 2
"""Axes that span less have ticks within a decade, too."""


@styled
def errors_of_projections(projection_audit: pl.DataFrame) -> Figure:
    """The error of each projection's cosines beside theory's, and how far their similarities are from the full ones.

    Args:
        projection_audit: the table of that name, at least one row.
    """
    audit = projection_audit
    labels = [
        f"{name.replace('_', ' ')}\n{count(dimension)} dimensions"
        for name, dimension in audit.select("projection", "dimension").iter_rows()
    ]
    places = -np.arange(audit.height)
    figure = new_figure(_title(audit), height=1.5 + 0.42 * audit.height)
    errors, agreements = figure.subplots(1, 2, sharey=True)
    _draw(errors, audit["predicted_sd"], places, "o", MUTED, PAPER, "theory")
    _draw(errors, audit["error_sd"], places, "o", BLUE, BLUE, "measured")
    errors.set_title("error of a projected cosine")
    errors.set_xlabel("root mean square (log scale)")
    for column, marker, colour, face, label in (
        ("agreement_rightly_scaled", "s", MUTED, PAPER, "dense, rightly scaled (drawn)"),
        ("agreement", "s", ORANGE, ORANGE, "as stored"),
    ):
        _draw(agreements, 1 - audit[column], places, marker, colour, face, label)
    agreements.set_title("distance from the full gradient")
    agreements.set_xlabel("1 - cosine of similarities (log scale)")
    for axes in (errors, agreements):
        first, last = axes.get_xlim()
        subs = (1.0,) if last / first > 10**FEWEST_DECADES else (1.0, 2.0, 5.0)
        axes.xaxis.set_major_locator(LogLocator(subs=subs, numticks=6))
    errors.set_yticks(places, labels)
    errors.set_ylim(-audit.height + 0.4, 0.6)
    return figure


def _draw(axes: Axes, values: pl.Series, places: np.ndarray, marker: str, colour: str, face: str, label: str) -> None:
    shown = values.clip(SMALLEST_SHOWN).to_numpy()
    axes.plot(shown, places, marker, color=colour, markerfacecolor=face, markersize=6, label=label, clip_on=False)
    axes.set_xscale("log")
    axes.margins(x=0.12)
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}" if value >= SMALLEST_IN_FULL else power_of_ten(value))
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x")
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.28), ncols=1, handletextpad=0.2)


def _title(audit: pl.DataFrame) -> str:
    known = audit.filter(pl.col("sd_ratio").is_finite())
    if known.is_empty():
        return "Projected cosines beside those of the full gradient"
    ratios = [f"{ratio:.2f}" for ratio in known["sd_ratio"].sort().to_list()]
    times = listed(list(dict.fromkeys(ratios))) if known.height < 3 else f"{ratios[0]} to {ratios[-1]}"
    return f"Projected cosines err by {times} times what theory says"
