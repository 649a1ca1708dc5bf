"""Figures of the analysis tables: one function a figure, and what turns a figure into PNG or SVG.

Every function takes tables of `gradsim.analysis` and returns a matplotlib `Figure` whose title says
what the data show. Nothing here keeps global state: no pyplot, and the style holds while drawing.
"""

from gradsim.plots.accuracy import accuracy_of_methods
from gradsim.plots.audit import errors_of_audit
from gradsim.plots.encode import title_of, to_png, to_svg
from gradsim.plots.labels import control_label, layer_label, method_label, setting_label
from gradsim.plots.layers import (
    accuracy_of_layers,
    layers_against_full_gradient,
    parameters_of_components,
)
from gradsim.plots.projections import errors_of_projections
from gradsim.plots.similarity import source_against_others

__all__ = [
    "accuracy_of_layers",
    "accuracy_of_methods",
    "control_label",
    "errors_of_audit",
    "errors_of_projections",
    "layer_label",
    "layers_against_full_gradient",
    "method_label",
    "parameters_of_components",
    "setting_label",
    "source_against_others",
    "title_of",
    "to_png",
    "to_svg",
]
