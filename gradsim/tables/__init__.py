"""Stored tables: their schemas, file locations, lineage and freshness."""

from gradsim.analysis.schema import Column
from gradsim.tables.files import read_provenance
from gradsim.tables.keys import State, TableKey
from gradsim.tables.lineage import Lineage, Node
from gradsim.tables.provenance import Provenance
from gradsim.tables.schemas import SCHEMAS, TableSchema
from gradsim.tables.store import Store
from gradsim.tables.writing import TableWriter, write_table

__all__ = [
    "SCHEMAS",
    "Column",
    "Lineage",
    "Node",
    "Provenance",
    "State",
    "Store",
    "TableKey",
    "TableSchema",
    "TableWriter",
    "read_provenance",
    "write_table",
]
