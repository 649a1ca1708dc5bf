"""Evaluation of each layer's gradient alone, a few queries at a time."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from gradsim.analysis.evaluation import Evaluation
from gradsim.analysis.layer_dots import LayerDots

Positions = NDArray[np.int64]

# Number of dots per part, sized to fit in the CPU cache. One large part is slower and needs several copies.
_DOTS_AT_ONCE = 1 << 17


def evaluate_layers(layer_dots: LayerDots) -> Evaluation:
    """Evaluate the similarities of each layer alone, one column per layer."""
    evaluation = Evaluation.empty(*layer_dots.query_self_dots.shape)
    for queries, part in in_parts(layer_dots):
        evaluation.add(Evaluation.of(part.lists, part.layer_similarities(), part.similarity()), queries)
    return evaluation


def in_parts(layer_dots: LayerDots) -> Iterator[tuple[Positions, LayerDots]]:
    """Yield the indices and dot products of consecutive queries, in parts that fit in the CPU cache."""
    ends = np.cumsum(layer_dots.lists.lengths) * len(layer_dots.layers)
    part = ends // _DOTS_AT_ONCE
    for queries in np.split(np.arange(len(part)), np.flatnonzero(np.diff(part)) + 1):
        yield queries, layer_dots.of_queries(queries)
