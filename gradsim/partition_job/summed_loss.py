"""Gradients of the loss summed over labels: the mean's gradient times the number of labels."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from gradsim.gradients import Tile
from gradsim.gradients.capture.encoding import MASKED
from gradsim.gradients.results import ProjectedDots
from gradsim.partition_job.inputs import JobInputs, TokenSequence

Floats = NDArray[np.float64]
Dots = TypeVar("Dots", Tile, ProjectedDots)


def label_counts(samples: Iterable[TokenSequence]) -> Floats:
    """Return the number of labels with a loss in each sample; nothing predicts the first token."""
    return np.array([sum(label != MASKED for label in sample.labels[1:]) for sample in samples], dtype=np.float64)


def of_summed_loss(tiles: Iterable[Tile], inputs: JobInputs) -> Iterator[Tile]:
    """Yield tiles with the dots of the summed loss instead of the mean one; losses stay means."""
    queries, originals = label_counts(inputs.queries), label_counts(inputs.originals)
    for tile in tiles:
        pairs = inputs.pairs[tile.pairs]
        factors = (
            queries[pairs[:, 0]] * originals[pairs[:, 1]],
            queries[tile.queries] ** 2,
            originals[tile.originals] ** 2,
        )
        projected = {name: _scaled(dots, *factors) for name, dots in tile.projected.items()}
        yield replace(_scaled(tile, *factors), projected=projected)


def _scaled(dots: Dots, of_pairs: Floats, of_queries: Floats, of_originals: Floats) -> Dots:
    return replace(
        dots,
        dots=dots.dots * of_pairs[:, None],
        query_self_dots=dots.query_self_dots * of_queries[:, None],
        original_self_dots=dots.original_self_dots * of_originals[:, None],
    )
