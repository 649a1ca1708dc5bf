"""I/O manager that stores assets as Parquet tables of a study, so that asset functions take and return frames."""

from collections.abc import Mapping
from typing import Any

import dagster as dg
import polars as pl

from gradsim.errors import TableError
from gradsim.study import Study
from gradsim.tables import Provenance, Store, TableKey
from gradsim.tables.index import IndexFile
from gradsim.tables.lineage import INDEX
from gradsim_assets.keys import asset_key, table_key
from resources.failing import failing_plainly
from resources.storage import StorageResource

# Output metadata that become the table's provenance: excluded and truncated samples, model, revision, dataset format.
EXCLUDED, TRUNCATED, MODEL_NAME, REVISION, FORMAT = "excluded", "truncated", "model", "revision", "format"


class TableIOManager(dg.IOManager):
    """Loads the partitions that a step needs as one frame, and splits the step's output by partition."""

    def __init__(self, storage: StorageResource, studies: Mapping[str, Study]) -> None:
        self._storage = storage
        self._studies = studies

    @failing_plainly()
    def load_input(self, context: dg.InputContext) -> pl.DataFrame:
        """Return the rows of all partitions that the step needs, in order.

        Raises:
            dagster.Failure: A file is missing or unreadable.
        """
        key = table_key(context.asset_key)
        partitions = context.asset_partition_keys if context.has_asset_partitions else [None]
        return self._store(key).read(key, partitions)

    @failing_plainly()
    def handle_output(self, context: dg.OutputContext, obj: pl.DataFrame) -> None:
        """Write a table or its partitions, each atomically.

        Raises:
            dagster.Failure: A row belongs to none of the step's partitions, or a file cannot be written.
        """
        key = table_key(context.asset_key)
        store = self._store(key)
        said = {name: _plain(value) for name, value in context.output_metadata.items()}
        names = (EXCLUDED, TRUNCATED, MODEL_NAME, REVISION, FORMAT)
        known = Provenance.model_validate({name: said[name] for name in names if name in said})
        if not context.has_asset_partitions:
            store.write(key, obj, provenance=known)
            context.add_output_metadata(stored_metadata(store, key))
            context.step_context.set_data_version(context.asset_key, version_of(store, key))
            return
        by_sample = {name: notes for name in (EXCLUDED, TRUNCATED) if (notes := getattr(known, name))}
        ids = {partition: store.ids_of(partition) for partition in context.asset_partition_keys}
        _refuse_strangers(key, obj, set().union(*ids.values()))
        for partition, mine in ids.items():
            own = {
                name: {sample: notes[sample] for sample in mine if sample in notes} for name, notes in by_sample.items()
            }
            rows = obj.filter(pl.first().is_in(mine))
            store.write(key, rows, partition, known.model_copy(update=own))
            metadata = stored_metadata(store, key, partition)
            # Replace the step's metadata, which cover all partitions.
            context.step_context.add_asset_metadata(metadata | own, context.asset_key, partition)
        context.step_context.set_data_version(context.asset_key, version_of(store, key))

    def _store(self, key: TableKey) -> Store:
        return self._storage.store(self._studies[key.study])


def _refuse_strangers(key: TableKey, rows: pl.DataFrame, ids: set[str]) -> None:
    """Raise for rows outside the partitions: rows are split by their first column, and none may be lost."""
    strangers = set(rows.to_series(0).unique()) - ids
    if strangers:
        raise TableError(f"table {key}: {min(strangers)!r} belongs to none of the requested partitions")


def materialized(store: Store, key: TableKey, metadata: Mapping[str, Any] | None = None) -> dg.MaterializeResult[None]:
    """Return the result of a step that stored a table without partitions, with metadata for the web UI."""
    return dg.MaterializeResult(
        asset_key=asset_key(key),
        metadata={**stored_metadata(store, key), **(metadata or {})},
        data_version=version_of(store, key),
    )


def version_of(store: Store, key: TableKey) -> dg.DataVersion:
    """Return the data version of a stored table in Dagster: the digest of its rows.

    Dagster has one version for all partitions of a step, so partitioned tables have their fingerprint instead; it does
    not depend on which partitions share a step. The check `stored_and_fresh` compares the partitions' rows.
    """
    if store.lineage[key].partitioned:
        return dg.DataVersion(store.lineage.fingerprint(key))
    return dg.DataVersion(store.provenance(key).data_version)


def stored_metadata(store: Store, key: TableKey, partition: str | None = None) -> dict[str, Any]:
    """Return the web UI's metadata of a stored table or partition, with its excluded and truncated samples."""
    path, provenance = store.path(key, partition), store.provenance(key, partition)
    metadata: dict[str, Any] = {
        "dagster/row_count": store.rows(key, partition),
        "dagster/uri": str(path),
        "fingerprint": provenance.fingerprint,
    }
    metadata |= {name: notes for name in (EXCLUDED, TRUNCATED) if (notes := getattr(provenance, name))}
    if key.name == INDEX:
        with IndexFile(path) as file:
            metadata |= {"projection": file.header.projection, "dimensions": file.header.layout.width}
        metadata["bytes"] = path.stat().st_size
    return metadata


def _plain(value: Any) -> Any:
    return value.value if isinstance(value, dg.MetadataValue) else value
