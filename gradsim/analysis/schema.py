"""Columns of tables."""

from typing import NamedTuple, TypeAlias

import polars as pl


class Column(NamedTuple):
    """Data type and meaning of a column."""

    dtype: pl.DataType | type[pl.DataType]
    description: str


Schema: TypeAlias = dict[str, Column]
"""Columns by name, in their order."""


def column_types(schema: Schema) -> dict[str, pl.DataType | type[pl.DataType]]:
    """Return the column dtypes alone, as a polars schema."""
    return {name: column.dtype for name, column in schema.items()}
