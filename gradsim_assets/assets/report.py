"""The report asset: all results of a study on one page."""

from typing import Any

import dagster as dg
import polars as pl

from gradsim import analysis
from gradsim import report as pages
from gradsim.analysis import LayerDots
from gradsim.analysis.methods import BM25
from gradsim.analysis.questions import SIZES, TOKENS
from gradsim.analysis.similarity import FULL_GRADIENT
from gradsim.notebook.texts import readable
from gradsim.plots.labels import method_label
from gradsim.tables import Lineage, Store, TableKey
from gradsim.tables.lineage import DOT_TABLES, TRANSFER
from gradsim_assets.asset_specs import OWNERS, code_version, group_of, tags_of
from gradsim_assets.io_manager import version_of
from gradsim_assets.keys import asset_key
from gradsim_assets.preview import markdown
from gradsim_assets.report_provenance import definition_of, provenance_of
from resources.failing import failing_plainly
from resources.storage import StorageResource


def report_asset(lineage: Lineage) -> dg.AssetsDefinition:
    """Return the asset of `report.html`, made from the stored tables of all settings."""
    study, node = lineage.study, lineage[lineage.key("report")]

    @dg.asset(
        key=asset_key(node.key),
        description="All results of the study on one self-contained HTML page, readable offline.",
        group_name=group_of(node.key),
        tags=tags_of(node.key),
        owners=OWNERS,
        kinds={"html"},
        code_version=code_version(lineage, node.key),
        deps=[asset_key(source) for source in node.inputs],
    )
    @failing_plainly()
    def report(storage: StorageResource) -> dg.MaterializeResult[None]:
        store = storage.store(study)
        path = store.write_report(pages.render_report(gather(store)))
        return dg.MaterializeResult(
            metadata={
                "report": dg.MetadataValue.path(str(path)),
                "megabytes": round(path.stat().st_size / 1e6, 2),
                **_accuracies(store),
            },
            data_version=version_of(store, node.key),
        )

    return report


def _accuracies(store: Store) -> dict[str, Any]:
    """Return the share of queries whose source each method finds: as a table, and as numbers that the web UI plots."""
    accuracy = pl.concat(
        store.read(store.lineage.key("accuracy", setting, "analysis"))
        .filter(pl.col("group") == "all")
        .select(pl.lit(setting).alias("setting"), pl.col("method").cast(pl.String), "accuracy", "low", "high")
        for setting in store.study.settings
    )
    percent = [(100 * pl.col(name)).round(1) for name in ("accuracy", "low", "high")]
    shown = accuracy.select(
        "setting",
        pl.col("method").map_elements(method_label, return_dtype=pl.String),
        pl.format("{} % ({} to {})", *percent).alias("sources found (95 % interval)"),
    )
    numbers = accuracy.filter(pl.col("method").is_in([FULL_GRADIENT, BM25]))
    return {
        "accuracies": dg.MetadataValue.md(markdown(shown)),
        **{f"{setting}: {method_label(method)}": round(share, 4) for setting, method, share, *_ in numbers.iter_rows()},
    }


def gather(store: Store) -> pages.ReportData:
    """Read the data of a study's report from its stored tables.

    Raises:
        TableError: A table is missing or unreadable.
    """
    study, key = store.study, store.lineage.key
    return pages.ReportData(
        study=study.name,
        settings=[_setting(store, setting) for setting in study.settings],
        provenance=provenance_of(store),
        precision=study.model.precision,
        definition=definition_of(study),
        description=study.description,
        parameters_per_layer=store.read(key(SIZES, room="analysis")),
        selection_transfer=store.read(key(TRANSFER, room="analysis")),
        originals=None if study.imported else readable(store, store.read(key("samples"))),
        exclusions=None if study.imported else _by_sample(store, "excluded", "reason"),
        truncations=None if study.imported else _by_sample(store, "truncated", "kept"),
    )


def _setting(store: Store, setting: str) -> pages.SettingReport:
    lineage = store.lineage
    nodes = [node for node in lineage if node.key.room == "analysis" and node.key.setting == setting]
    dots = (store.read(lineage.key(name, setting, "results")) for name in DOT_TABLES)
    return pages.SettingReport(
        setting,
        tables={
            **{node.key.name: store.read(node.key) for node in nodes},
            "baseline_differences": _baseline_differences(store, setting),
        },
        queries=None if store.study.imported else readable(store, store.read(lineage.key("queries", setting))),
        layer_dots=LayerDots.from_tables(*dots),
    )


def _baseline_differences(store: Store, setting: str) -> pl.DataFrame:
    """Return the full gradient's lead over each baseline; imported results have no tokens, hence no answer lengths."""
    inputs = store.lineage.analysis_inputs("controls", setting)
    lengths = [analysis.answer_lengths(store.read(inputs[name])) for name in TOKENS if name in inputs]
    similarity, candidates = (
        store.read(store.lineage.key(name, setting, "results")) for name in ("gradient_similarity", "candidates")
    )
    return analysis.baseline_differences(similarity, candidates, *lengths, seed=store.study.seed)


def _by_sample(store: Store, field: str, column: str) -> pl.DataFrame:
    """Return a table of what a field of the provenance says of samples, over all stages."""
    keys: list[TableKey] = [store.lineage.key("tokenized")]
    for setting in store.study.settings:
        keys += [store.lineage.key(table, setting) for table in ("queries", "tokenized", "dot_products")]
    rows = [
        (sample if key.setting is None else f"{key.setting}: {sample}", note)
        for key in keys
        if key in store.lineage
        for partition in store.partitions(key)
        for sample, note in getattr(store.provenance(key, partition), field).items()
    ]
    return pl.DataFrame(rows, schema={"id": pl.String, column: pl.String}, orient="row")
