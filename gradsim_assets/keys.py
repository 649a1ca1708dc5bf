"""Table keys as asset keys and back: an asset lies where its key says."""

import dagster as dg

from gradsim.tables import TableKey


def asset_key(key: TableKey) -> dg.AssetKey:
    """The asset of a table."""
    return dg.AssetKey(list(key.parts))


def table_key(key: dg.AssetKey) -> TableKey:
    """The table of an asset."""
    return TableKey.from_parts(tuple(key.path))
