"""Results of a comparison, whole or in tiles. All values are float64 arrays on the host."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from gradsim.gradients.planning.plan import Plan
from gradsim.representation import Summarized, Summary

Floats = NDArray[np.float64]
Positions = NDArray[np.int64]


@dataclass(frozen=True)
class ProjectedDots:
    """Dots of one projector, with the same shapes as the exact dots."""

    dots: Floats
    query_self_dots: Floats
    original_self_dots: Floats


@dataclass(frozen=True, repr=False)
class Comparison(Summarized):
    """Results of one `compare` call.

    Samples that are in no pair never run, so their self dots and losses are NaN. With `on_bad_sample="exclude"`, all
    values of a bad sample are NaN.
    """

    layers: list[str]
    """Layer names, in the order of `model.named_parameters()`."""
    dots: Floats
    """Inner products of the pairs' gradients, (pairs, layers)."""
    query_self_dots: Floats
    """Squared gradient norms of the queries, (queries, layers)."""
    original_self_dots: Floats
    """Squared gradient norms of the originals, (originals, layers)."""
    query_losses: Floats
    """Mean cross-entropy of each query over its unmasked labels, in nats, (queries,)."""
    original_losses: Floats
    """Mean cross-entropy of each original over its unmasked labels, in nats, (originals,)."""
    projected: dict[str, ProjectedDots]
    """Projected dots by projector name."""
    bad_queries: list[int]
    """Positions of the excluded queries, ascending."""
    bad_originals: list[int]
    """Positions of the excluded originals, ascending."""
    noise: list[str]
    """Layers with only rounding noise as gradient: the exact value is zero or too small for the precision."""
    plan: Plan
    """Plan of the run, with the predicted passes and peak bytes."""
    memorised: int
    """Number of samples rerun in float64 because their loss was below `MEMORISED`."""
    passes: int
    """Number of single-sample forward and backward passes, including repetitions."""
    peak_bytes: int
    """Peak size of the captured samples, in bytes."""
    memory_retries: int
    """Number of times that memory ran out and the rest was replanned with half of it."""

    def _summary(self) -> Summary:
        queries, originals = len(self.query_self_dots), len(self.original_self_dots)
        facts = {
            "pairs": f"{len(self.dots):,}, of {queries:,} queries and {originals:,} originals",
            "layers": f"{len(self.layers):,}, from {self.layers[0]} to {self.layers[-1]}",
            "noise": ", ".join(self.noise),
            "projected": ", ".join(self.projected),
            "excluded": f"{len(self.bad_queries):,} queries, {len(self.bad_originals):,} originals",
            "passes": f"{self.passes:,}",
            "arrays": ".dots, .query_self_dots, .original_self_dots, .query_losses, .original_losses",
        }
        return Summary("Comparison of gradients", {label: fact for label, fact in facts.items() if fact})


@dataclass(frozen=True)
class Tile:
    """Part of a comparison: some pairs, plus the self dots and losses computed since the previous tile."""

    pairs: Positions
    """Positions of this tile's pairs, ascending."""
    dots: Floats
    """Inner products of this tile's pairs, (pairs, layers)."""
    queries: Positions
    """Positions of this tile's queries, ascending."""
    query_self_dots: Floats
    """Squared gradient norms of this tile's queries, (queries, layers)."""
    query_losses: Floats
    """Mean losses of this tile's queries, (queries,)."""
    originals: Positions
    """Positions of this tile's originals, ascending."""
    original_self_dots: Floats
    """Squared gradient norms of this tile's originals, (originals, layers)."""
    original_losses: Floats
    """Mean losses of this tile's originals, (originals,)."""
    queries_done: int
    """Number of leading queries with complete results: all their pairs and self dots are in this or earlier tiles."""
    projected: dict[str, ProjectedDots] = field(default_factory=dict)
    """Projected dots by projector name."""
