"""Exact per-layer inner products of single-sample gradients, in one pass over the samples.

`compare` returns every number, `compare_tiles` yields the same in tiles; `Projector` asks for randomly projected dots
beside the exact ones. How it works, from the outside in:

compare.py       the two functions: what is given is checked here
encoding.py      samples and pairs, checked; equal samples become one
layers.py        the model's parameter tensors, checked
run.py           carries out a plan: captures samples, compares pairs, hands tiles out
ways.py          in which forms gradients can be kept, and how passes can run
plan.py          chooses the way and the schedule that cost least within a memory budget
schedule.py      which samples when
prediction.py    the plan and its time without running anything; calibration.py how fast a device is
sizes.py         what layers and samples take, and what they cost in either form
profile.py       what a pass keeps in memory, measured on a piece of a sample or estimated from shapes
capture.py       one forward and backward of a batch -> the terms of each layer's gradient, sample by sample
batch.py         samples that run together; checkpoint.py blocks that run twice to keep less
check.py         the terms against plain autograd, before anything depends on them
rules/           the mathematics of each layer type
held.py          the samples that are held, and the dots of many of them
layout.py        where each layer lies in a sample's row; rows.py all rows, and their inner products
projection/      random projections; projecting.py what they add to a comparison's cost
tiles.py         numbers on their way to the host; results.py what the caller gets
arithmetic.py    accurate sums; precision.py the number format; memory.py what a device has to spare
bad_samples.py   samples without a usable gradient
reference.py     plain autograd, the oracle of the tests and of every study's audit
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
