"""Analysis assets: each answers one question from the combined tables, with a figure if one helps."""

from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING

import dagster as dg
import polars as pl

from gradsim import analysis, plots
from gradsim.analysis import QUESTIONS, Criterion, LayerDots
from gradsim.errors import AnalysisError, GradsimError
from gradsim.tables import Lineage, Provenance, Store, TableKey
from gradsim.tables.lineage import AUDIT, DOT_TABLES, TRANSFER
from gradsim_assets.asset_specs import table_asset, table_spec
from gradsim_assets.io_manager import materialized
from gradsim_assets.keys import asset_key
from gradsim_assets.preview import preview
from resources.failing import failing_plainly
from resources.storage import StorageResource

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Frame = pl.DataFrame

KINDS = {"polars", "parquet"}


def study_analysis_assets(lineage: Lineage) -> list[dg.AssetsDefinition]:
    """Return the analyses of the model alone and of all settings together."""
    return [_parameters_per_layer(lineage), _selection_transfer(lineage)]


def setting_analysis_assets(lineage: Lineage, setting: str) -> dg.AssetsDefinition:
    """Return the analyses of one setting, in any subset.

    All of them are one step, which reads each combined table once.
    """
    study = lineage.study
    keys = {name: lineage.key(name, setting, "analysis") for name in lineage.analyses if name != AUDIT}

    @dg.multi_asset(
        name=f"{study.name}__{setting}__analyses",
        specs=[table_spec(lineage, key, kinds=KINDS) for key in keys.values()],
        can_subset=True,
    )
    def analyses(context: dg.AssetExecutionContext, storage: StorageResource) -> Iterator[dg.MaterializeResult[None]]:
        store = storage.store(study)
        read = cache(store.read)
        for name, key in keys.items():
            if asset_key(key) in context.selected_asset_keys:
                with failing_plainly():
                    inputs = lineage.analysis_inputs(name, setting)
                    answer = _answer(store, key, {argument: read(source) for argument, source in inputs.items()})
                yield answer

    return analyses


def _answer(store: Store, key: TableKey, tables: Mapping[str, Frame]) -> dg.MaterializeResult[None]:
    """Compute and store the answer to a setting's question.

    Raises:
        AnalysisError: The analysis raised an error of another kind; an extension may raise any.
    """
    try:
        table = QUESTIONS[key.name].answer(tables, store.study.seed)
        figure = plots.figure_of(key.name, {**tables, key.name: table}, str(key.setting))
    except GradsimError:
        raise
    except Exception as error:
        raise AnalysisError(f"{key}: {error}") from error
    by_layer = "query_self" in tables
    noise = analysis.noise_layers(tables["query_self"], tables["original_self"]) if by_layer else []
    return _stored(store, key, table, figure, noise)


def _parameters_per_layer(lineage: Lineage) -> dg.AssetsDefinition:
    key = lineage.key("parameters_per_layer", room="analysis")

    @table_asset(lineage, key, kinds=KINDS)
    def parameters_per_layer(storage: StorageResource) -> dg.MaterializeResult[None]:
        store = storage.store(lineage.study)
        table = analysis.parameters_per_layer(store.read(lineage.layers_key))
        known = table["parameters"].null_count() == 0
        return _stored(store, key, table, plots.parameters_of_components(table) if known else None)

    return parameters_per_layer


def _selection_transfer(lineage: Lineage) -> dg.AssetsDefinition:
    study, key = lineage.study, lineage.key(TRANSFER, room="analysis")

    @table_asset(lineage, key, kinds=KINDS)
    def selection_transfer(storage: StorageResource) -> dg.MaterializeResult[None]:
        store = storage.store(study)
        of = {
            setting: {name: store.read(source) for name, source in lineage.transfer_inputs(setting).items()}
            for setting in study.settings
        }
        dots = {setting: LayerDots.from_tables(*(of[setting][name] for name in DOT_TABLES)) for setting in of}
        table = analysis.selection_transfer(
            dots,
            {setting: {each: of[setting][f"greedy_by_{each}"] for each in Criterion} for setting in of},
            {setting: of[setting]["held_out_selection"] for setting in of},
            seed=study.seed,
        )
        noise = list(dict.fromkeys(layer for each in dots.values() for layer in each.noise))
        return _stored(store, key, table, None if table.is_empty() else plots.transfer_of_selections(table), noise)

    return selection_transfer


def _stored(
    store: Store, key: TableKey, table: Frame, figure: "Figure | None", layers_left_out: Sequence[str] = ()
) -> dg.MaterializeResult[None]:
    """Store an analysis, and return its metadata: the first rows, the figure and the excluded layers."""
    store.write(key, table, provenance=Provenance(layers_left_out=list(layers_left_out)))
    left_out = {"layers_left_out": list(layers_left_out)} if layers_left_out else {}
    return materialized(store, key, {**preview(table, figure), **left_out})
