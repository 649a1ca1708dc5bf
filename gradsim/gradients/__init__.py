"""Exact per-layer inner products of single-sample gradients, in one pass over the samples.

`compare` returns every number, `compare_tiles` yields the same in tiles; `Projector` asks for randomly projected dots
beside the exact ones. How it works, from the outside in:

compare.py      the two functions: what is given is checked here
encoding.py     samples and pairs, checked; equal samples become one
run.py          carries out a plan: captures samples, compares pairs, hands tiles out
plan.py         chooses the schedule with the fewest passes within a memory budget; predicts passes and bytes
schedule.py     which sample when
sizes.py        what a captured sample takes, and which form of its gradients is cheaper
capture.py      one forward and backward of one sample -> the terms of each layer's gradient
check.py        the terms against plain autograd, before anything depends on them
rules/          the mathematics of each layer type
held.py         a captured sample as it is held; dots of two of them
projection.py   random projections
tiles.py        numbers on their way to the host; results.py what the caller gets
arithmetic.py   accurate sums; precision.py and memory.py the model's number format and the device's memory
reference.py    plain autograd, the oracle of the tests
"""

from gradsim.gradients.check import FallbackWarning
from gradsim.gradients.compare import compare, compare_tiles
from gradsim.gradients.projection import Projector
from gradsim.gradients.results import Comparison, ProjectedDots, Tile
from gradsim.gradients.run import ComparisonTiles

__all__ = [
    "Comparison",
    "ComparisonTiles",
    "FallbackWarning",
    "ProjectedDots",
    "Projector",
    "Tile",
    "compare",
    "compare_tiles",
]
