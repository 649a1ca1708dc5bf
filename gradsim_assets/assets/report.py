"""The report asset: everything a study found, in one page."""

from collections.abc import Iterable

import dagster as dg
import polars as pl

from gradsim.report import ReportData, SettingReport, render_report
from gradsim.study import Study
from gradsim.tables import Lineage, Store, TableKey
from gradsim.tables.lineage import ANALYSES
from gradsim_assets.describe import OWNERS
from gradsim_assets.keys import asset_key
from resources.storage import StorageResource


def report_asset(study: Study) -> dg.AssetsDefinition:
    """`report.html`, from the stored tables of all settings."""
    lineage = Lineage(study)
    node = lineage[lineage.key("report")]

    @dg.asset(
        key=asset_key(node.key),
        description="Everything the study found, in one page that needs no network.",
        group_name=f"{study.name}_report",  # apart from the dataset, so that groups have no cycle
        owners=OWNERS,
        kinds={"html"},
        deps=[asset_key(source) for source in node.inputs],
    )
    def report(storage: StorageResource) -> dg.MaterializeResult[None]:
        store = storage.store(study)
        path = store.write_report(render_report(gather(store)))
        return dg.MaterializeResult(metadata={"report": dg.MetadataValue.path(str(path)), "bytes": path.stat().st_size})

    return report


def gather(store: Store) -> ReportData:
    """What the report of a study is made from.

    Raises:
        TableError: a table is missing or unreadable.
    """
    key = store.lineage.key
    return ReportData(
        study=store.study.name,
        settings=[_setting(store, setting) for setting in store.study.settings],
        provenance=_provenance(store),
        precision=store.study.model.precision,
        parameters_per_layer=store.read(key("parameters_per_layer", room="analysis")),
        originals=store.read(key("samples")),
        exclusions=_exclusions(store),
    )


def _setting(store: Store, setting: str) -> SettingReport:
    tables = {name: store.read(store.lineage.key(name, setting, "analysis")) for name in ANALYSES}
    return SettingReport(setting, **tables, queries=store.read(store.lineage.key("queries", setting)))


def _provenance(store: Store) -> dict[str, str]:
    """How the numbers came about; where partitions differ, all that is true of one."""
    lineage = store.lineage
    dots = [lineage.key("dot_products", setting) for setting in store.study.settings]
    files = [store.provenance(key, partition) for key in dots for partition in store.partitions(key)]
    created = sorted(file.created for file in files)
    return {
        "Study": store.study.description or store.study.name,
        "Fingerprint": lineage.fingerprint(lineage.key("report")),
        "Model": _listed(f"{file.model}, revision {file.revision}" for file in files),
        "Device": _listed(str(file.device) for file in files),
        "Precision": _listed(str(file.precision) for file in files),
        "Seed": str(store.study.seed),
        "Gradients computed": created[0] if len(set(created)) == 1 else f"{created[0]} to {created[-1]}",
        "Code version": _listed(file.code_version for file in files),
    }


def _listed(values: Iterable[str]) -> str:
    return "; ".join(dict.fromkeys(values))


def _exclusions(store: Store) -> pl.DataFrame:
    """Every sample that was left out anywhere, and why."""
    keys: list[TableKey] = [store.lineage.key("tokenized")]
    for setting in store.study.settings:
        keys += [store.lineage.key(table, setting) for table in ("queries", "tokenized", "dot_products")]
    rows = [
        (sample if key.setting is None else f"{key.setting}: {sample}", reason)
        for key in keys
        for partition in store.partitions(key)
        for sample, reason in store.provenance(key, partition).excluded.items()
    ]
    return pl.DataFrame(rows, schema={"id": pl.String, "reason": pl.String}, orient="row")
