"""Layer selection: which layers suffice to find sources or to reproduce the full gradient's similarities.

| module | contents |
| --- | --- |
| `greedy` | greedy forward selection and backward elimination |
| `halves` | random splits of the queries, and values on held-out halves |
| `curves` | `greedy_by_accuracy`, `greedy_by_similarity`: value of each step of a selection |
| `held_out` | `held_out_selection`: value of selections on held-out queries |
| `budget` | `selection_under_budget`: greedy selections within a parameter budget |
| `projected` | `select_or_project`: selection and projection of the same dimension |
| `transfer` | `selection_transfer`: one setting's selection evaluated in another |
"""

from gradsim.analysis.evaluation import Criterion
from gradsim.analysis.selection.budget import SELECTION_UNDER_BUDGET, selection_under_budget
from gradsim.analysis.selection.curves import GREEDY, greedy_selection, value_of_selection, with_parameters
from gradsim.analysis.selection.held_out import HELD_OUT_SELECTION, held_out_selection
from gradsim.analysis.selection.projected import SELECT_OR_PROJECT, select_or_project
from gradsim.analysis.selection.transfer import SELECTION_TRANSFER, selection_transfer

__all__ = [
    "GREEDY",
    "HELD_OUT_SELECTION",
    "SELECTION_TRANSFER",
    "SELECTION_UNDER_BUDGET",
    "SELECT_OR_PROJECT",
    "Criterion",
    "greedy_selection",
    "held_out_selection",
    "select_or_project",
    "selection_transfer",
    "selection_under_budget",
    "value_of_selection",
    "with_parameters",
]
