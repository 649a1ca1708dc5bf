"""Combined tables: all partitions of a setting's table in one file, streamed block by block."""

import dagster as dg

from gradsim.errors import TableError
from gradsim.study import Study
from gradsim.tables import Lineage, Store, TableKey
from gradsim.tables.combine import combine
from gradsim.tables.lineage import COMBINED_TABLES
from gradsim.tables.validation import validate
from gradsim_assets.asset_specs import table_asset
from gradsim_assets.io_manager import stored_metadata
from resources.storage import StorageResource


def result_assets(study: Study, setting: str) -> list[dg.AssetsDefinition]:
    """Return one combined-table asset for each partitioned table that analyses use."""
    return [_combined(study, setting, table) for table in COMBINED_TABLES]


def _combined(study: Study, setting: str, table: str) -> dg.AssetsDefinition:
    lineage = Lineage(study)
    key, source = lineage.key(table, setting, "results"), lineage.key(table, setting)

    @table_asset(lineage, key, kinds={"polars", "parquet"})
    def combined(storage: StorageResource) -> dg.MaterializeResult[None]:
        store = storage.store(study)
        partitions = store.blocks(source)
        _refuse_faulty(store, source)
        with store.writer(key) as writer:
            for rows in combine(table, partitions):
                writer.add(rows)
        return dg.MaterializeResult(metadata=stored_metadata(store, key))

    return combined


def _refuse_faulty(store: Store, key: TableKey) -> None:
    """Raise if a stored partition fails a check: a failed asset check stops its own run, but not later ones.

    Raises:
        TableError: A partition fails one of its checks.
    """
    for partition in store.partitions(key):
        for check, fault in validate(store, key, str(partition)).items():
            if fault:
                raise TableError(f"{store.path(key, partition)}: {check}: {fault}; delete it and run again")
