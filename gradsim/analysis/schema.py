"""How the columns of an analysis table are documented."""

from typing import TypeAlias

import polars as pl

Schema: TypeAlias = dict[str, tuple[pl.DataType | type[pl.DataType], str]]
"""Column name -> (dtype, one line on what it holds), in column order."""


def column_types(schema: Schema) -> dict[str, pl.DataType | type[pl.DataType]]:
    """The dtypes alone, as polars wants them."""
    return {name: dtype for name, (dtype, _) in schema.items()}
