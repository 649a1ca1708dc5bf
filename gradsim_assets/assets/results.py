"""Combined tables: all partitions of a setting's table in one file, streamed block by block."""

from collections.abc import Iterator

import dagster as dg

from gradsim.errors import TableError
from gradsim.tables import Lineage, Store, TableKey
from gradsim.tables.combine import combine
from gradsim.tables.lineage import COMBINED_TABLES
from gradsim.tables.validation import validate
from gradsim_assets.asset_specs import table_spec
from gradsim_assets.io_manager import materialized
from gradsim_assets.keys import asset_key
from resources.failing import failing_plainly
from resources.storage import StorageResource


def result_assets(lineage: Lineage, setting: str) -> dg.AssetsDefinition:
    """Return the combined tables of one setting, in any subset; all of them are one step."""
    sources = {lineage.key(name, setting, "results"): lineage.key(name, setting) for name in COMBINED_TABLES}

    @dg.multi_asset(
        name=f"{lineage.study.name}__{setting}__results",
        specs=[table_spec(lineage, key, kinds={"polars", "parquet"}) for key in sources],
        can_subset=True,
    )
    def results(context: dg.AssetExecutionContext, storage: StorageResource) -> Iterator[dg.MaterializeResult[None]]:
        store = storage.store(lineage.study)
        for key, source in sources.items():
            if asset_key(key) in context.selected_asset_keys:
                with failing_plainly():
                    _combine(store, key, source)
                yield materialized(store, key)

    return results


def _combine(store: Store, key: TableKey, source: TableKey) -> None:
    partitions = store.blocks(source)
    _refuse_faulty(store, source)
    with store.writer(key) as writer:
        for rows in combine(key.name, partitions):
            writer.add(rows)


def _refuse_faulty(store: Store, key: TableKey) -> None:
    """Raise if a stored partition fails a check: a failed asset check stops its own run, but not later ones.

    Raises:
        TableError: A partition fails one of its checks.
    """
    for partition in store.partitions(key):
        for check, fault in validate(store, key, str(partition)).items():
            if fault:
                raise TableError(f"{store.path(key, partition)}: {check}: {fault}; delete it and run again")
