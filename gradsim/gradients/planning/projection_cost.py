"""What projections add to a comparison: which gradients they need, what they cost, from what they are computed."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gradsim.gradients.planning.sizes import Costs
from gradsim.gradients.projection import Projection

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Booleans = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class ProjectingCost:
    """What it takes to project samples.

    Attributes:
        by_term: (projections, layers) whether terms are projected as they come; else the gradient is.
        operations: (samples,) of each.
        moved_bytes: that are read and written for one sample.
    """

    by_term: Booleans
    operations: Floats
    moved_bytes: float


def needed_gradients(projections: Sequence[Projection], layers: Sequence[str]) -> Booleans:
    """(layers,) whether some projection needs the built gradient."""
    return np.array(
        [
            any(not projection.keeps_whole(layer) and not projection.takes_factors(layer) for projection in projections)
            for layer in layers
        ]
    )


def projecting_cost(
    projections: Sequence[Projection], layers: Sequence[str], costs: Costs, built: Booleans, used: Integers
) -> ProjectingCost:
    """Of all samples; for each layer and projection from terms or from the gradient, whichever costs less in all.

    Args:
        projections: at work.
        layers: names of the layers.
        costs: of the layers.
        built: (layers,) whether the gradient is built.
        used: samples that are run.
    """
    rows = costs.rows.astype(np.float64)
    operations = np.zeros(len(rows))
    moved = 0.0
    by_term = np.zeros((len(projections), len(layers)), dtype=bool)
    for kind, projection in enumerate(projections):
        for layer, name in enumerate(layers):
            if projection.keeps_whole(name):
                continue
            of_gradient = projection.effort(name)
            if projection.takes_factors(name) and costs.has_factors[layer]:
                # Looked-up rows are few beside what they are looked up in, and left out.
                a_row = projection.term_effort(name, 1.0).operations
                from_terms = a_row * rows[used, layer].sum()
                by_term[kind, layer] = not built[layer] or from_terms < of_gradient.operations * len(used)
                if by_term[kind, layer]:
                    operations += a_row * rows[:, layer]
                    continue
            operations += of_gradient.operations
            moved += of_gradient.moved_bytes
    return ProjectingCost(by_term, operations, moved)
