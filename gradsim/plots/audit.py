"""Errors of stored inner products relative to plain autograd."""

import numpy as np
import polars as pl
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator

from gradsim.analysis.audit import DOT, audit_verdict
from gradsim.analysis.layers import COMPONENTS, component_of
from gradsim.plots.labels import power_of_ten
from gradsim.plots.style import BLUE, ORANGE, VERMILION, new_figure, styled

SMALLEST_SHOWN = 1e-16
"""Smallest error on the logarithmic axis; smaller ones are rounding errors of the comparison."""

JITTER = 0.28
"""Maximum vertical jitter of the points of a component, in rows."""


@styled
def errors_of_audit(gradient_audit: pl.DataFrame, precision: str) -> Figure:
    """Draw the error of every audited value by component, with the tolerance.

    Args:
        gradient_audit: Table `gradient_audit`.
        precision: Precision of the study.
    """
    verdict = audit_verdict(gradient_audit, precision)
    layers = gradient_audit["layer"].cast(pl.String)
    audit = gradient_audit.with_columns(pl.Series("component", [component_of(layer) for layer in layers]))
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
