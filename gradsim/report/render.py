"""Puts a study's results into the page."""

from dataclasses import dataclass
from pathlib import Path

import polars as pl
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.figure import Figure

from gradsim import analysis, plots
from gradsim.plots.labels import listed, percent, setting_label
from gradsim.report.data import ReportData, SettingReport
from gradsim.report.findings import (
    BigNumber,
    Decision,
    Messages,
    big_numbers,
    interesting_decisions,
    proof_of,
    summary_of,
)
from gradsim.report.tables import Table, table_of, texts_by_id

FOLDER = Path(__file__).parent

_LAYER = pl.col("layer").cast(pl.String)  # Enums of several tables need not be equal


@dataclass(frozen=True)
class Picture:
    """A figure as the page shows it: the finding as text, the rest as SVG."""

    title: str
    svg: Markup


@dataclass(frozen=True)
class Proof:
    """Stored dots beside those of plain autograd."""

    agrees: bool
    sentence: str
    picture: Picture
    table: Table


@dataclass(frozen=True)
class SettingView:
    """What the template says about one setting."""

    name: str
    label: str
    big_numbers: list[BigNumber]
    summary: list[str]
    tables: list[Table]
    pictures: list[Picture]
    layers: Table | None
    proof: Proof | None
    decisions_shown: str
    decisions: list[Decision]
    decisions_table: Table
    missing: str


def render_report(data: ReportData) -> str:
    """One HTML page of a study's findings, tables, figures, texts, method and provenance.

    Nothing in it is fetched from elsewhere; every text from the data is escaped.

    Raises:
        ValueError: there is no setting.
    """
    if not data.settings:
        raise ValueError("a report needs at least one setting")
    environment = Environment(
        loader=FileSystemLoader(FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["percent"] = percent
    originals = texts_by_id(data.originals)
    accuracy = plots.accuracy_of_methods(
        {setting.setting: setting.accuracy for setting in data.settings},
        {setting.setting: setting.controls for setting in data.settings},
    )
    return environment.get_template("template.html.j2").render(
        study=data.study,
        headline=plots.title_of(accuracy),
        accuracy=_picture(accuracy, "accuracy"),
        settings=[_setting_view(setting, data, originals) for setting in data.settings],
        parameters=_parameters(data.parameters_per_layer),
        provenance=data.provenance,
        exclusions=_exclusions(data.exclusions),
        css=Markup((FOLDER / "style.css").read_text(encoding="utf-8")),
        script=Markup((FOLDER / "script.js").read_text(encoding="utf-8")),
    )


def _setting_view(setting: SettingReport, data: ReportData, originals: Messages) -> SettingView:
    name = setting.setting
    queries = texts_by_id(setting.queries)
    decisions_shown, decisions = interesting_decisions(setting, queries, originals)
    return SettingView(
        name=name,
        label=setting_label(name),
        big_numbers=big_numbers(setting),
        summary=summary_of(setting),
        tables=[
            table_of(f"{name}_{table}", caption, frame, analysis.SCHEMAS[table])
            for table, caption, frame in (
                ("accuracy", "Accuracy", setting.accuracy),
                ("controls", "Null controls", setting.controls),
                ("best_similarity", "Similarity of the best candidate", setting.best_similarity),
                ("projection_audit", "Projections beside theory", setting.projection_audit),
            )
            if frame is not None and not frame.is_empty()
        ],
        pictures=_pictures(setting, data.parameters_per_layer),
        layers=_layers(setting, data.parameters_per_layer),
        proof=_proof(setting, data.precision),
        decisions_shown=decisions_shown,
        decisions=decisions,
        decisions_table=table_of(
            f"{name}_decisions", "All decisions", setting.decisions, analysis.SCHEMAS["decisions"]
        ),
        missing=_missing(setting, data),
    )


def _picture(figure: Figure, name: str) -> Picture:
    return Picture(plots.title_of(figure), Markup(plots.to_svg(figure, name)))


def _pictures(setting: SettingReport, parameters: pl.DataFrame | None) -> list[Picture]:
    figures = {"similarity": plots.source_against_others(setting.decisions)}
    if setting.accuracy_per_layer is not None and parameters is not None:
        figures["layers"] = plots.accuracy_of_layers(setting.accuracy_per_layer, parameters)
    if setting.similarity_to_full_gradient is not None and parameters is not None:
        figures["full"] = plots.layers_against_full_gradient(setting.similarity_to_full_gradient, parameters)
    if setting.projection_audit is not None and not setting.projection_audit.is_empty():
        figures["projections"] = plots.errors_of_projections(setting.projection_audit)
    return [_picture(figure, f"{setting.setting}-{name}") for name, figure in figures.items()]


def _layers(setting: SettingReport, parameters: pl.DataFrame | None) -> Table | None:
    """All that is known of each layer in one table."""
    if setting.accuracy_per_layer is None:
        return None
    layers = setting.accuracy_per_layer.drop("queries", "tied").with_columns(_LAYER)
    for table in (setting.similarity_to_full_gradient, parameters):
        if table is not None:
            layers = layers.join(table.with_columns(_LAYER), on="layer", maintain_order="left")
    schema = {
        **analysis.SCHEMAS["accuracy_per_layer"],
        **analysis.SCHEMAS["similarity_to_full_gradient"],
        **analysis.SCHEMAS["parameters_per_layer"],
    }
    return table_of(f"{setting.setting}_layers", "All layers", layers, schema)


def _proof(setting: SettingReport, precision: str) -> Proof | None:
    audit = setting.gradient_audit
    if audit is None or audit.is_empty():
        return None
    verdict = analysis.audit_verdict(audit, precision)
    return Proof(
        agrees=verdict.passed,
        sentence=proof_of(verdict),
        picture=_picture(plots.errors_of_audit(audit, precision), f"{setting.setting}-audit"),
        table=table_of(f"{setting.setting}_audit", "Audited numbers", audit, analysis.SCHEMAS["gradient_audit"]),
    )


def _missing(setting: SettingReport, data: ReportData) -> str:
    """What the page leaves out because it was not at hand."""
    absent = {
        "accuracy by layer": setting.accuracy_per_layer,
        "similarity of layers to the full gradient": setting.similarity_to_full_gradient,
        "dots by plain autograd": setting.gradient_audit,
        "sizes of the layers": data.parameters_per_layer,
        "texts of the queries": setting.queries,
        "texts of the originals": data.originals,
    }
    return listed([name for name, table in absent.items() if table is None])


def _parameters(parameters: pl.DataFrame | None) -> Picture | None:
    if parameters is None:
        return None
    return _picture(plots.parameters_of_components(parameters), "parameters")


def _exclusions(exclusions: pl.DataFrame | None) -> Table | None:
    if exclusions is None or exclusions.is_empty():
        return None
    return table_of("exclusions", "Samples left out", exclusions, {})
