"""How the columns of an analysis table are documented."""

from typing import TypeAlias

import polars as pl

Schema: TypeAlias = dict[str, tuple[type[pl.DataType], str]]
"""Column name -> (dtype, one line on what it holds), in column order."""


def column_types(schema: Schema) -> dict[str, type[pl.DataType]]:
    """The dtypes alone, as polars wants them."""
    return {name: dtype for name, (dtype, _) in schema.items()}
