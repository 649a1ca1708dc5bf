"""Exact per-layer inner products of single-sample gradients, in one pass over the samples.

`compare` returns all results at once, `compare_tiles` yields them in tiles, and `Projector` requests randomly projected
dots in addition to the exact ones. Modules and subpackages, from the outside in:

compare.py       entry points: validate the arguments
run.py           executes a plan: captures samples, compares pairs, yields tiles
tiles.py         collects dots on the device and builds tiles
results.py       result types
calibration.py   measures the speed of a device
reference.py     plain autograd, the oracle of the tests and of every study's audit
capture/         forward and backward pass of a batch: inputs, model state, and each sample's gradient terms
rules/           gradient formulas of each layer type
held/            captured samples in memory, and their inner products
planning/        cheapest schedule within the memory budget, and its predicted cost
projection/      random projections
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
