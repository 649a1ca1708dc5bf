"""Figures of the analysis tables, one function per figure, and their conversion to PNG and SVG.

| module | figures |
| --- | --- |
| `accuracy` | `accuracy_of_methods` |
| `retrieval` | `recall_at_k`, `source_against_others` |
| `layers` | `accuracy_of_layers`, `layers_against_full_gradient`, `parameters_of_components` |
| `groups` | `means_of_groups`, `means_by_depth`, `attention_and_mlp` |
| `differences` | `differences_of_layers` |
| `selection` | `greedy_selection`, `transfer_of_selections` |
| `selection_order` | `selection_order` |
| `projected` | `selected_or_projected` |
| `over_layers` | `similarity_over_layers` |
| `projections` | `errors_of_projections`, `errors_of_audit` |

Every function takes tables of `gradsim.analysis`, named as its arguments, and returns a matplotlib `Figure`. Tables of
layers have the same layers; their sizes may be null. The title states the finding. A function with nothing to draw
raises a `TableError`, and callers omit the figure. There is no global state: pyplot is never used, and the style
applies only while drawing.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
