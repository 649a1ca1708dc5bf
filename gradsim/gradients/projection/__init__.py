"""Random projections of layers' gradients: one interface, and its kinds.

A projection R of a layer keeps inner products on average, E<Rg, Rg'> = <g, g'>, and is the same in every process, on
every device and for every partition: it follows from (seed, kind, layer's name, dimension) alone.

projector.py     what is asked for
at_work.py       a projector at work on a model's layers
kind.py          what every kind offers; registry.py the kinds by name
sjlt.py  rademacher.py  srht.py  logra.py  mask.py  traker.py     one kind each
randomness.py    random bits that follow from a key and a counter
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
