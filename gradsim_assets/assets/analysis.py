"""Analysis assets: each answers one question from the combined tables, with a figure if one helps."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import dagster as dg
import polars as pl

from gradsim import analysis, plots
from gradsim.analysis import QUESTIONS, Criterion, LayerDots
from gradsim.study import Study
from gradsim.tables import Lineage
from gradsim.tables.lineage import AUDIT, DOT_TABLES, TRANSFER
from gradsim_assets.asset_specs import table_asset
from gradsim_assets.io_manager import LAYERS_LEFT_OUT
from gradsim_assets.preview import preview

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Frame = pl.DataFrame

KINDS = {"polars", "parquet"}


def study_analysis_assets(study: Study) -> list[dg.AssetsDefinition]:
    """Return the analyses of the model alone and of all settings together."""
    return [_parameters_per_layer(study), _selection_transfer(study)]


def setting_analysis_assets(study: Study, setting: str) -> list[dg.AssetsDefinition]:
    """Return the analyses of one setting's combined tables."""
    lineage = Lineage(study)
    return [_answer(lineage, setting, name) for name in lineage.analyses if name != AUDIT]


def _answer(lineage: Lineage, setting: str, name: str) -> dg.AssetsDefinition:
    key, inputs = lineage.key(name, setting, "analysis"), lineage.analysis_inputs(name, setting)

    @table_asset(lineage, key, kinds=KINDS, ins=inputs)
    def answer(**tables: Frame) -> dg.Output[Frame]:
        table = QUESTIONS[name].answer(tables, lineage.study.seed)
        by_layer = "query_self" in inputs
        noise = analysis.noise_layers(tables["query_self"], tables["original_self"]) if by_layer else []
        return _shown(table, plots.figure_of(name, {**tables, name: table}, setting), noise)

    return answer


def _parameters_per_layer(study: Study) -> dg.AssetsDefinition:
    lineage = Lineage(study)
    key = lineage.key("parameters_per_layer", room="analysis")

    @table_asset(lineage, key, kinds=KINDS, ins={"model": lineage.key("model")})
    def parameters_per_layer(model: Frame) -> dg.Output[Frame]:
        table = analysis.parameters_per_layer(model)
        known = table["parameters"].null_count() == 0
        return _shown(table, plots.parameters_of_components(table) if known else None)

    return parameters_per_layer


def _selection_transfer(study: Study) -> dg.AssetsDefinition:
    lineage = Lineage(study)
    inputs = {
        f"{setting}__{name}": key
        for setting in study.settings
        for name, key in lineage.transfer_inputs(setting).items()
    }

    @table_asset(lineage, lineage.key(TRANSFER, room="analysis"), kinds=KINDS, ins=inputs)
    def selection_transfer(**tables: Frame) -> dg.Output[Frame]:
        of = {setting: _without_prefix(tables, f"{setting}__") for setting in study.settings}
        dots = {setting: LayerDots.from_tables(*(of[setting][name] for name in DOT_TABLES)) for setting in of}
        table = analysis.selection_transfer(
            dots,
            {setting: {each: of[setting][f"greedy_by_{each}"] for each in Criterion} for setting in of},
            {setting: of[setting]["held_out_selection"] for setting in of},
            seed=study.seed,
        )
        noise = list(dict.fromkeys(layer for each in dots.values() for layer in each.noise.cast(pl.String)))
        return _shown(table, None if table.is_empty() else plots.transfer_of_selections(table), noise)

    return selection_transfer


def _without_prefix(tables: Mapping[str, Frame], prefix: str) -> dict[str, Frame]:
    return {name.removeprefix(prefix): table for name, table in tables.items() if name.startswith(prefix)}


def _shown(table: Frame, figure: "Figure | None", layers_left_out: Sequence[str] = ()) -> dg.Output[Frame]:
    """Return a table as an output with metadata: its first rows, its figure and the excluded layers."""
    left_out = {LAYERS_LEFT_OUT: list(layers_left_out)} if layers_left_out else {}
    return dg.Output(table, metadata={**preview(table, figure), **left_out})
