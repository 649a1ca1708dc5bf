"""Exact per-layer inner products of single-sample gradients, in one pass over the samples.

`compare` returns every number, `compare_tiles` yields the same in tiles; `Projector` asks for randomly projected dots
beside the exact ones. How it works, from the outside in:

compare.py      runs a plan: captures samples, compares pairs, gathers the numbers
plan.py         which sample when, within a memory budget; passes and bytes predicted
sizes.py        what a captured sample takes, and which form of it is cheaper
capture.py      one forward and backward of one sample -> the terms of each layer's gradient
check.py        the terms against plain autograd, before anything depends on them
rules/          the mathematics of each layer type
projection.py   random projections
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
