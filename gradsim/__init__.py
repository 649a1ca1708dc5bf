"""Which training sample did a text come from? Exact gradient similarity, layer by layer.

This package is the science: it does not import Dagster. `gradsim_assets` makes assets of it; `resources` provides the
device, the API client and the place to compute.
"""

import lazy_loader

__version__ = "0.2.0"

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
