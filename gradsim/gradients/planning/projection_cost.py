"""Cost of projections: the gradients that they need, their operations, and the input that they are computed from."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gradsim.gradients.planning.sizes import Costs
from gradsim.gradients.projection import ModelProjection

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Booleans = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class ProjectingCost:
    """Cost of projecting samples.

    Attributes:
        by_term: (projections, layers) whether each term is projected as it arrives, instead of the whole gradient.
        operations: (samples,) operations per sample.
        moved_bytes: bytes read and written per sample.
    """

    by_term: Booleans
    operations: Floats
    moved_bytes: float


def needed_gradients(projections: Sequence[ModelProjection], layers: Sequence[str]) -> Booleans:
    """Return whether any projection needs the built gradient of each layer, (layers,)."""
    return np.array(
        [
            any(not projection.keeps_whole(layer) and not projection.takes_factors(layer) for projection in projections)
            for layer in layers
        ]
    )


def projecting_cost(
    projections: Sequence[ModelProjection], layers: Sequence[str], costs: Costs, built: Booleans, used: Integers
) -> ProjectingCost:
    """Return the cost of projecting every sample.

    Each layer and projection uses terms or built gradients, whichever costs less over all samples that run.

    Args:
        projections: projections to compute.
        layers: layer names.
        costs: costs of the layers.
        built: (layers,) whether each layer's gradient is built.
        used: indices of the samples that run.
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
                # Embedding rows are not counted: projecting them is cheap.
                a_row = projection.term_effort(name, 1.0).operations
                from_terms = a_row * rows[used, layer].sum()
                by_term[kind, layer] = not built[layer] or from_terms < of_gradient.operations * len(used)
                if by_term[kind, layer]:
                    operations += a_row * rows[:, layer]
                    continue
            operations += of_gradient.operations
            moved += of_gradient.moved_bytes
    return ProjectingCost(by_term, operations, moved)
