"""Column documentation of analysis tables."""

from typing import TypeAlias

import polars as pl

Schema: TypeAlias = dict[str, tuple[pl.DataType | type[pl.DataType], str]]
"""Column name -> (dtype, one-line description), in column order."""


def column_types(schema: Schema) -> dict[str, pl.DataType | type[pl.DataType]]:
    """Return the column dtypes alone, as a polars schema."""
    return {name: dtype for name, (dtype, _) in schema.items()}
