"""Which layers suffice: greedy selection, judged on other queries, within a budget, beside projections, elsewhere.

| module | what it has |
| --- | --- |
| `greedy` | the order in which layers are chosen, or given up |
| `halves` | splits of the queries, and what is worth what on halves that had no part in it |
| `curves` | `greedy_by_accuracy`, `greedy_by_similarity`: what each step of a selection is worth |
| `held_out` | `held_out_selection`: what it is worth on queries that it was not selected on |
| `budget` | `selection_under_budget`: greedy selections of at most so many parameters |
| `projected` | `select_or_project`: selection and projection at equal dimension |
| `transfer` | `selection_transfer`: one setting's selection in another |
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
