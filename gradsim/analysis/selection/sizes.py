"""Number of parameters of each layer."""

import numpy as np
import polars as pl
from numpy.typing import NDArray

from gradsim.errors import TableError


def sizes_of(layers: pl.Series, parameters_per_layer: pl.DataFrame) -> NDArray[np.int64] | None:
    """Return the number of parameters of each layer, (layers,), or None if sizes are unknown.

    Args:
        layers: layer names.
        parameters_per_layer: the table `parameters_per_layer`.

    Raises:
        TableError: a layer is not in `parameters_per_layer`.
    """
    known = dict(parameters_per_layer.select(pl.col("layer").cast(pl.String), pl.col("parameters")).iter_rows())
    names = layers.cast(pl.String).to_list()
    for name in names:
        if name not in known:
            raise TableError(f"layer {name!r} is not in parameters_per_layer: materialize it again")
    if any(known[name] is None for name in names):
        return None
    return np.array([known[name] for name in names], dtype=np.int64)
