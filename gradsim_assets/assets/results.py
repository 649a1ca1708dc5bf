"""Combined tables: all partitions of a setting's table in one file."""

import dagster as dg
import polars as pl

from gradsim.study import Study
from gradsim.tables import Lineage
from gradsim.tables.combine import combine
from gradsim.tables.lineage import COMBINED_TABLES
from gradsim_assets.describe import table_asset


def result_assets(study: Study, setting: str) -> list[dg.AssetsDefinition]:
    """One combined table for each table that has partitions and is analysed."""
    return [_combined(study, setting, table) for table in COMBINED_TABLES]


def _combined(study: Study, setting: str, table: str) -> dg.AssetsDefinition:
    lineage = Lineage(study)
    key = lineage.key(table, setting, "results")

    @table_asset(lineage, key, kinds={"polars", "parquet"}, ins={"partitions": lineage.key(table, setting)})
    def combined(partitions: pl.DataFrame) -> pl.DataFrame:
        return combine(table, partitions)

    return combined
