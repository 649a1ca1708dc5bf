"""What the web UI shows of an asset before it was ever materialized."""

from typing import Any

import dagster as dg

from gradsim.tables import SCHEMAS, Node, TableSchema
from gradsim_assets.keys import asset_key

OWNERS = ["team:gradsim"]


def described(node: Node, *, kinds: set[str]) -> dict[str, Any]:
    """Arguments that `@dg.asset` and `dg.AssetSpec` share for a table's asset."""
    schema = SCHEMAS[node.key.name]
    return {
        "key": asset_key(node.key),
        "description": schema.description,
        "group_name": group(node),
        "owners": OWNERS,
        "kinds": kinds,
        "metadata": {"dagster/column_schema": column_schema(schema)},
    }


def group(node: Node) -> str:
    """Assets of a study, or of one of its settings, stand together."""
    key = node.key
    return f"{key.study}_{key.setting}" if key.setting else key.study


def column_schema(schema: TableSchema) -> dg.TableSchema:
    """Columns with their types and meanings."""
    return dg.TableSchema(
        columns=[
            dg.TableColumn(name, _type_name(column.dtype), description=column.description)
            for name, column in schema.columns.items()
        ]
    )


def _type_name(dtype: Any) -> str:
    return "string" if str(dtype).startswith("Enum") else str(dtype).lower()
