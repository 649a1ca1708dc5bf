"""Every layer's gradient alone, evaluated a few queries at a time."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from gradsim.analysis.evaluation import Evaluation
from gradsim.analysis.layer_dots import LayerDots

Positions = NDArray[np.int64]

# So many numbers of pairs and layers stay in a processor's cache; all at once are slower, and need several copies.
_DOTS_AT_ONCE = 1 << 17


def evaluate_layers(layer_dots: LayerDots) -> Evaluation:
    """What each layer's similarities are worth; one column a layer."""
    evaluation = Evaluation.empty(*layer_dots.query_self_dots.shape)
    for queries, part in in_parts(layer_dots):
        evaluation.add(Evaluation.of(part.lists, part.layer_similarities(), part.similarity()), queries)
    return evaluation


def in_parts(layer_dots: LayerDots) -> Iterator[tuple[Positions, LayerDots]]:
    """Positions of some queries after others, and their dots."""
    ends = np.cumsum(layer_dots.lists.lengths) * len(layer_dots.layers)
    part = ends // _DOTS_AT_ONCE
    for queries in np.split(np.arange(len(part)), np.flatnonzero(np.diff(part)) + 1):
        yield queries, layer_dots.of_queries(queries)
