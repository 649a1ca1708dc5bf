"""Makes gradient jobs compute one wrong layer, as a rule that is subtly off would.

Python imports this module at its start where this folder is in PYTHONPATH; it changes only processes that run partition
jobs, and there what the rules give after the engine has checked them.
"""

import sys
from dataclasses import replace
from typing import Any

LAYER = "model.layers.0.mlp.up_proj.weight"
FACTOR = 1.001


def poison() -> None:
    """Scale the factors that the engine holds of `LAYER`."""
    from gradsim.gradients.held.holder import Holder
    from gradsim.gradients.rules.terms import Outer

    take = Holder.take

    def poisoned(self: Holder, sample: int, layer: int, term: Any) -> None:
        if self._names[layer] == LAYER:
            assert isinstance(term, Outer), term
            term = replace(term, rows=FACTOR * term.rows)
        take(self, sample, layer, term)

    Holder.take = poisoned  # type: ignore[method-assign]


if "resources.job_server" in sys.orig_argv:
    poison()
