"""Conversion between table keys and asset keys, which have the same parts."""

import dagster as dg

from gradsim.tables import TableKey


def asset_key(key: TableKey) -> dg.AssetKey:
    """Return the asset key of a table."""
    return dg.AssetKey(list(key.parts))


def table_key(key: dg.AssetKey) -> TableKey:
    """Return the table key of an asset."""
    return TableKey.from_parts(tuple(key.path))
