"""Columns of tables."""

from typing import NamedTuple, TypeAlias

import polars as pl


class Column(NamedTuple):
    """Data type and meaning of a column."""

    dtype: pl.DataType | type[pl.DataType]
    description: str


Schema: TypeAlias = dict[str, Column]
"""Columns by name, in their order."""


def interval(kind: str, low: str = "low", high: str = "high") -> Schema:
    """Return the columns of both ends of a 95 % interval, described by its kind, such as `Wilson interval`."""
    return {
        low: Column(pl.Float64, f"lower end of the 95 % {kind}"),
        high: Column(pl.Float64, "upper end of the interval"),
    }


def column_types(schema: Schema) -> dict[str, pl.DataType | type[pl.DataType]]:
    """Return the column dtypes alone, as a polars schema."""
    return {name: column.dtype for name, column in schema.items()}
