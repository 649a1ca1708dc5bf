"""Random projections of layer gradients, with one interface for all kinds.

A layer's projection R preserves inner products in expectation, E<Rg, Rg'> = <g, g'>. It depends only on the seed, kind,
layer name and dimension, so it is identical in every process, on every device and for every partition.

projector.py     configuration of a projection
model_projection.py       projection of a model's layers
kind.py          interface of all kinds; registry.py the kinds by name
sjlt.py  rademacher.py  srht.py  logra.py  mask.py  traker.py     one kind each
dimensions.py    dimension of each layer
randomness.py    random bits from a key and a counter
vector_layout.py    layout of the projected layers in one vector
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
