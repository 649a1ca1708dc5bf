"""Analysis assets: each answers one question from combined tables, with a figure where people would rather look."""

from collections.abc import Callable

import dagster as dg
import polars as pl
from matplotlib.figure import Figure

from gradsim import analysis, plots
from gradsim.analysis import LayerDots
from gradsim.study import Study
from gradsim.tables import SCHEMAS, Lineage
from gradsim_assets.describe import table_asset
from gradsim_assets.preview import preview

Frame = pl.DataFrame


def study_analysis_assets(study: Study) -> list[dg.AssetsDefinition]:
    """What can be said of the model alone."""
    lineage = Lineage(study)
    key = lineage.key("parameters_per_layer", room="analysis")

    @table_asset(lineage, key, kinds={"polars", "parquet"}, ins={"model": lineage.key("model")})
    def parameters_per_layer(model: Frame) -> dg.Output[Frame]:
        table = analysis.parameters_per_layer(model)
        return _shown(table, plots.parameters_of_components(table))

    return [parameters_per_layer]


def setting_analysis_assets(study: Study, setting: str) -> list[dg.AssetsDefinition]:
    """What can be said of one setting's combined tables."""

    def accuracy(candidates: Frame, gradient_similarity: Frame, projected_similarity: Frame) -> dg.Output[Frame]:
        table = analysis.accuracy(gradient_similarity, candidates, projected_similarity)
        return _shown(table, plots.accuracy_of_methods({setting: table}, {setting: SCHEMAS["controls"].empty()}))

    def controls(gradient_similarity: Frame, original_tokens: Frame, query_tokens: Frame) -> dg.Output[Frame]:
        lengths = analysis.answer_lengths(original_tokens), analysis.answer_lengths(query_tokens)
        return _shown(analysis.controls(gradient_similarity, *lengths, seed=study.seed))

    def decisions(candidates: Frame, gradient_similarity: Frame) -> dg.Output[Frame]:
        table = analysis.decisions(gradient_similarity, candidates)
        return _shown(table, plots.source_against_others(table))

    def best_similarity(gradient_similarity: Frame, projected_similarity: Frame) -> dg.Output[Frame]:
        return _shown(analysis.best_similarity(gradient_similarity, projected_similarity))

    def accuracy_per_layer(
        dot_products: Frame, query_self: Frame, original_self: Frame, parameters_per_layer: Frame
    ) -> dg.Output[Frame]:
        table = analysis.accuracy_per_layer(LayerDots.from_tables(dot_products, query_self, original_self))
        return _shown(table, plots.accuracy_of_layers(table, parameters_per_layer))

    def similarity_to_full_gradient(
        dot_products: Frame, query_self: Frame, original_self: Frame, parameters_per_layer: Frame
    ) -> dg.Output[Frame]:
        dots = LayerDots.from_tables(dot_products, query_self, original_self)
        table = analysis.similarity_to_full_gradient(dots)
        return _shown(table, plots.layers_against_full_gradient(table, parameters_per_layer))

    def projection_audit(
        dot_products: Frame,
        query_self: Frame,
        original_self: Frame,
        projected_similarity: Frame,
        projections: Frame,
    ) -> dg.Output[Frame]:
        dots = LayerDots.from_tables(dot_products, query_self, original_self)
        errors = analysis.projection_errors(dots, projected_similarity, projections, seed=study.seed)
        table = analysis.projection_audit(errors)
        return _shown(table, plots.errors_of_projections(table) if study.projections else None)

    questions = (
        accuracy,
        controls,
        decisions,
        best_similarity,
        accuracy_per_layer,
        similarity_to_full_gradient,
        projection_audit,
    )
    return [_analysis_asset(study, setting, question) for question in questions]


def _analysis_asset(study: Study, setting: str, question: Callable[..., dg.Output[Frame]]) -> dg.AssetsDefinition:
    lineage = Lineage(study)
    key = lineage.key(question.__name__, setting, "analysis")
    inputs = lineage.analysis_inputs(question.__name__, setting)
    return table_asset(lineage, key, kinds={"polars", "parquet"}, ins=inputs)(question)


def _shown(table: Frame, figure: Figure | None = None) -> dg.Output[Frame]:
    """A table with its first rows and its figure in the asset's metadata."""
    return dg.Output(table, metadata=preview(table, figure))
