"""What a comparison gives back: whole, or in tiles. All arrays are float64 on the host."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from gradsim.gradients.planning.plan import Plan

Floats = NDArray[np.float64]
Positions = NDArray[np.int64]


@dataclass(frozen=True)
class ProjectedDots:
    """One projector's dots, shaped like the exact ones beside which it stands."""

    dots: Floats
    query_self_dots: Floats
    original_self_dots: Floats


@dataclass(frozen=True)
class Comparison:
    """Every number of one `compare`.

    The self dots and the loss of a sample that is in no pair are NaN: such a sample is never run. With
    `on_bad_sample="exclude"` every number of a bad sample is NaN.
    """

    layers: list[str]
    """Names of the layers, in the order of `model.named_parameters()`."""
    dots: Floats
    """(pairs, layers)"""
    query_self_dots: Floats
    """(queries, layers)"""
    original_self_dots: Floats
    """(originals, layers)"""
    query_losses: Floats
    """(queries,) mean cross-entropy of each query over its unmasked labels, in nats."""
    original_losses: Floats
    """(originals,) the same of each original."""
    projected: dict[str, ProjectedDots]
    """By projector name."""
    bad_queries: list[int]
    """Positions of the excluded queries, ascending."""
    bad_originals: list[int]
    """Positions of the excluded originals, ascending."""
    noise: list[str]
    """Layers whose gradient is rounding: its exact value is zero or too small for the precision."""
    plan: Plan
    """What was predicted: passes and peak bytes."""
    memorised: int
    """Samples that were run again in float64, because their loss was below `MEMORISED`."""
    passes: int
    """Samples that were run forward and backward, every repetition counted."""
    peak_bytes: int
    """Most bytes that the captured samples took at once."""
    memory_retries: int
    """How often memory ran out in spite of the plan, and the rest was planned anew with half of it."""


@dataclass(frozen=True)
class Tile:
    """A part of a comparison: some pairs, and the self dots and losses that became known since the tile before."""

    pairs: Positions
    """Positions of this tile's pairs, ascending."""
    dots: Floats
    """(pairs of this tile, layers)"""
    queries: Positions
    """Positions of the queries whose self dots and losses are here."""
    query_self_dots: Floats
    query_losses: Floats
    """(queries of this tile,)"""
    originals: Positions
    """Positions of the originals whose self dots and losses are here."""
    original_self_dots: Floats
    original_losses: Floats
    queries_done: int
    """Every pair and self dot of queries before this position is out, in this tile or an earlier one."""
    projected: dict[str, ProjectedDots] = field(default_factory=dict)
