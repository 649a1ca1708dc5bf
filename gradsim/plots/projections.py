"""Errors of projected similarities compared with theory, and of stored inner products compared with autograd."""

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator

from gradsim.analysis.audit import DOT, audit_verdict
from gradsim.analysis.layers import COMPONENTS, component_of
from gradsim.plots.labels import count, listed, power_of_ten, projection_label
from gradsim.plots.marks import logarithmic
from gradsim.plots.style import BLUE, MUTED, ORANGE, PAPER, VERMILION, new_figure, styled

SMALLEST_SHOWN = 1e-16
"""Smallest value on the logarithmic axis; smaller ones are rounding errors."""

JITTER = 0.28
"""Maximum vertical jitter of the points of a component, in rows."""


@styled
def errors_of_projections(projection_audit: pl.DataFrame) -> Figure:
    """Draw measured and theoretical errors of projected cosines, and their distance from the full gradient.

    The distances of the stored projections have 95 % intervals.
    """
    audit = projection_audit
    labels = [
        f"{projection_label(name)}\n{count(dimension)} dimensions"
        for name, dimension in audit.select("projection", "dimension").iter_rows()
    ]
    places = -np.arange(audit.height)
    figure = new_figure(_title(audit), height=1.5 + 0.42 * audit.height)
    errors, agreements = figure.subplots(1, 2, sharey=True)
    _draw(errors, audit["predicted_sd"], places, "o", MUTED, PAPER, "theory")
    _draw(errors, audit["error_sd"], places, "o", BLUE, BLUE, "measured")
    errors.set_title("error of a projected cosine")
    errors.set_xlabel("root mean square error (log scale)")
    for column, marker, colour, face, label in (
        ("agreement_rightly_scaled", "s", MUTED, PAPER, "dense, correctly scaled (simulated)"),
        ("agreement", "s", ORANGE, ORANGE, "stored"),
    ):
        _draw(agreements, 1 - audit[column], places, marker, colour, face, label)
    ends = (1 - audit[f"agreement_{end}"].clip(upper_bound=1 - SMALLEST_SHOWN) for end in ("high", "low"))
    agreements.hlines(places, *ends, color=ORANGE, linewidth=1.8)
    agreements.set_title("distance from the full gradient")
    agreements.set_xlabel("1 − cosine (log scale)")
    for axes in (errors, agreements):
        axes.margins(x=0.12)
        axes.autoscale_view()
        logarithmic(axes, most=6)
        axes.tick_params(axis="y", length=0)
        axes.grid(axis="x")
    errors.set_yticks(places, labels)
    errors.set_ylim(-audit.height + 0.4, 0.6)
    handles = [handle for axes in figure.axes for handle in axes.get_legend_handles_labels()[0]]
    figure.legend(handles=handles, loc="outside lower left", ncols=2, handletextpad=0.2, columnspacing=3)
    return figure


def _draw(axes: Axes, values: pl.Series, places: np.ndarray, marker: str, colour: str, face: str, label: str) -> None:
    shown = values.clip(SMALLEST_SHOWN).to_numpy()
    axes.plot(shown, places, marker, color=colour, markerfacecolor=face, markersize=6, label=label, clip_on=False)
    axes.set_xscale("log")


def _title(audit: pl.DataFrame) -> str:
    known = audit.filter(pl.col("sd_ratio").is_finite())
    if known.is_empty():
        return "Projected cosines compared with those of the full gradient"
    ratios = [f"{ratio:.2f}" for ratio in known["sd_ratio"].sort().to_list()]
    times = listed(list(dict.fromkeys(ratios))) if known.height < 3 else f"{ratios[0]} to {ratios[-1]}"
    return f"Projected cosines have {times} times the error predicted by theory"


@styled
def errors_of_audit(gradient_audit: pl.DataFrame, precision: str) -> Figure:
    """Draw the error of every audited value by component, with the tolerance."""
    verdict = audit_verdict(gradient_audit, precision)
    components_of_rows = [component_of(layer) for layer in gradient_audit["layer"]]
    audit = gradient_audit.with_columns(pl.Series("component", components_of_rows))
    audit = audit.filter(pl.col("error").is_finite())
    components = [name for name in COMPONENTS if name in audit["component"]]
    if verdict.passed:
        title = f"{verdict.numbers} values agree with plain autograd to within {power_of_ten(verdict.worst)}"
    else:
        title = f"{verdict.beyond} of {verdict.numbers} values differ from plain autograd"

    figure = new_figure(title, height=1.3 + 0.24 * len(components))
    axes = figure.subplots()
    spread = np.random.default_rng(0).uniform(-JITTER, JITTER, len(audit))
    places = -audit["component"].cast(pl.Enum(components)).to_physical().cast(pl.Float64).to_numpy() + spread
    errors = audit["error"].clip(SMALLEST_SHOWN).to_numpy()
    dots = (audit["quantity"] == DOT).to_numpy()
    for chosen, marker, colour, label in ((dots, "o", BLUE, "inner products"), (~dots, "D", ORANGE, "squared norms")):
        axes.plot(errors[chosen], places[chosen], marker, color=colour, markersize=3.5, alpha=0.6, mew=0, label=label)
    axes.axvline(verdict.tolerance, color=VERMILION, linewidth=1.2, linestyle=(0, (3, 2)), label="tolerance")
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(FixedLocator([SMALLEST_SHOWN * 1000.0**step for step in range(7)]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(lambda error, _: ("≤ " if error <= SMALLEST_SHOWN else "") + power_of_ten(error))
    axes.set_yticks(-np.arange(len(components)), components)
    axes.set_ylim(-len(components) + 0.4, 0.6)
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel("error relative to the product of the layer's gradient norms (log scale)")
    axes.grid(axis="x")
    figure.legend(loc="outside right center", handletextpad=0.2)
    return figure
