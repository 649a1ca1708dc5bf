"""Which training sample did a text come from? Exact gradient similarity, layer by layer.

This package is the science: it knows nothing of Dagster. `gradsim_assets` makes assets of it, `resources` gives them
a device, an API client and a place to compute.
"""

__version__ = "0.1.0"
