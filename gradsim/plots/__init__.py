"""Figures of the analysis tables: one function a figure, and what turns a figure into PNG or SVG.

| module | figures |
| --- | --- |
| `accuracy` | `accuracy_of_methods` |
| `recall` | `recall_at_k` |
| `similarity` | `source_against_others` |
| `layers` | `accuracy_of_layers`, `layers_against_full_gradient`, `parameters_of_components` |
| `groups` | `means_of_groups`, `means_by_depth`, `attention_and_mlp` |
| `differences` | `differences_of_layers` |
| `selection` | `greedy_selection`, `transfer_of_selections` |
| `selection_order` | `selection_order` |
| `projected` | `selected_or_projected` |
| `over_layers` | `similarity_over_layers` |
| `projections`, `audit` | `errors_of_projections`, `errors_of_audit` |

Every function takes tables of `gradsim.analysis` and returns a matplotlib `Figure` whose title says
what the data show. One that has nothing to draw raises a `TableError`, which says so: callers leave the
figure out. Nothing here keeps global state: no pyplot, and the style holds while drawing.
"""

from gradsim.plots.accuracy import accuracy_of_methods
from gradsim.plots.audit import errors_of_audit
from gradsim.plots.differences import differences_of_layers
from gradsim.plots.encode import title_of, to_png, to_svg
from gradsim.plots.groups import attention_and_mlp, means_by_depth, means_of_groups
from gradsim.plots.labels import control_label, layer_label, method_label, setting_label
from gradsim.plots.layers import (
    accuracy_of_layers,
    layers_against_full_gradient,
    parameters_of_components,
)
from gradsim.plots.over_layers import similarity_over_layers
from gradsim.plots.projected import selected_or_projected
from gradsim.plots.projections import errors_of_projections
from gradsim.plots.recall import recall_at_k
from gradsim.plots.selection import greedy_selection, transfer_of_selections
from gradsim.plots.selection_order import selection_order
from gradsim.plots.similarity import source_against_others

__all__ = [
    "accuracy_of_layers",
    "accuracy_of_methods",
    "attention_and_mlp",
    "control_label",
    "differences_of_layers",
    "errors_of_audit",
    "errors_of_projections",
    "greedy_selection",
    "layer_label",
    "layers_against_full_gradient",
    "means_by_depth",
    "means_of_groups",
    "method_label",
    "parameters_of_components",
    "recall_at_k",
    "selected_or_projected",
    "selection_order",
    "setting_label",
    "similarity_over_layers",
    "source_against_others",
    "title_of",
    "to_png",
    "to_svg",
    "transfer_of_selections",
]
