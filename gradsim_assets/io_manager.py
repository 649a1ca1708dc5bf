"""Assets as Parquet tables of a study's store: functions take frames and give frames."""

from collections.abc import Mapping
from typing import Any

import dagster as dg
import polars as pl

from gradsim.errors import TableError
from gradsim.study import Study
from gradsim.tables import Provenance, Store, TableKey
from gradsim_assets.keys import table_key
from resources.storage import StorageResource

# Output metadata that become the table's provenance: samples left out, and why; layers left out; the model it is about.
EXCLUDED, LAYERS_LEFT_OUT, MODEL, REVISION = "excluded", "layers_left_out", "model", "revision"


class TableIOManager(dg.IOManager):
    """Loads the partitions that a step needs as one frame, and splits what it gives by partition."""

    def __init__(self, storage: StorageResource, studies: Mapping[str, Study]) -> None:
        self._storage = storage
        self._studies = studies

    def load_input(self, context: dg.InputContext) -> pl.DataFrame:
        """All rows of the partitions that the step asks for, in order."""
        key = table_key(context.asset_key)
        partitions = context.asset_partition_keys if context.has_asset_partitions else [None]
        return self._store(key).read(key, partitions)

    def handle_output(self, context: dg.OutputContext, obj: pl.DataFrame) -> None:
        """Write a table or its partitions, each whole or not at all."""
        key = table_key(context.asset_key)
        store = self._store(key)
        said = {name: _plain(value) for name, value in context.output_metadata.items()}
        names = (EXCLUDED, LAYERS_LEFT_OUT, MODEL, REVISION)
        known = Provenance.model_validate({name: said[name] for name in names if name in said})
        if not context.has_asset_partitions:
            store.write(key, obj, provenance=known)
            context.add_output_metadata(stored_metadata(store, key))
            return
        ids = {partition: store.ids_of(partition) for partition in context.asset_partition_keys}
        _refuse_strangers(key, obj, set().union(*ids.values()))
        for partition, mine in ids.items():
            excluded = {sample: known.excluded[sample] for sample in mine if sample in known.excluded}
            rows = obj.filter(pl.first().cast(pl.String).is_in(mine))
            store.write(key, rows, partition, known.model_copy(update={EXCLUDED: excluded}))
            metadata = stored_metadata(store, key, partition)
            # In the place of those of all partitions, which the step has said.
            own = {EXCLUDED: excluded} if known.excluded else {}
            context.step_context.add_asset_metadata(metadata | own, context.asset_key, partition)

    def _store(self, key: TableKey) -> Store:
        return self._storage.store(self._studies[key.study])


def _refuse_strangers(key: TableKey, rows: pl.DataFrame, ids: set[str]) -> None:
    """Rows are split by their first column; none may be lost on the way."""
    strangers = set(rows.to_series(0).unique().cast(pl.String)) - ids
    if strangers:
        raise TableError(f"table {key}: {min(strangers)!r} belongs to none of the partitions that were asked for")


def stored_metadata(store: Store, key: TableKey, partition: str | None = None) -> dict[str, Any]:
    """What the web UI shows of a stored table or partition: rows, place, definition, what was left out."""
    path, provenance = store.path(key, partition), store.provenance(key, partition)
    metadata: dict[str, Any] = {
        "dagster/row_count": store.rows(key, partition),
        "dagster/uri": str(path),
        "fingerprint": provenance.fingerprint,
    }
    return {**metadata, EXCLUDED: provenance.excluded} if provenance.excluded else metadata


def _plain(value: Any) -> Any:
    return value.value if isinstance(value, dg.MetadataValue) else value
