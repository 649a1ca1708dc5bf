"""Building blocks of the page's sections."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl
from matplotlib.figure import Figure

from gradsim import analysis
from gradsim.analysis.question import Tables
from gradsim.analysis.questions import SIZES
from gradsim.plots.labels import setting_label
from gradsim.plots.registry import FigureOf
from gradsim.report.data import ReportData, SettingReport
from gradsim.report.downloads import Download, Downloads
from gradsim.report.drawing import Picture, picture_of
from gradsim.report.tables import Table, table_of

NAMES = {
    "accuracy": "accuracy",
    "controls": "null controls",
    "baseline_differences": "differences from the baselines",
    "method_differences": "differences between methods",
    "select_or_project": "select or project",
    "greedy_by_accuracy": "greedy selection by accuracy",
    "greedy_by_similarity": "greedy selection by similarity",
    "held_out_selection": "held-out selection",
    "selection_under_budget": "selection under a budget",
    "accuracy_per_layer": "accuracy by layer",
    "similarity_to_full_gradient": "similarity of layers to the full gradient",
    "layer_means": "means of layers",
    "attention_against_mlp": "attention against MLP",
    "layer_differences": "differences between layers",
    "projection_audit": "projections and theory",
    "retrieval": "retrieval",
    "best_similarity": "best similarities",
    "decisions": "decisions",
    "gradient_audit": "gradient audit",
    "divergence": "divergence of queries",
    "similarity_over_layers": "similarity over layers",
}
"""Display name of each table of a setting, in the page's order."""

SCHEMAS = {**analysis.SCHEMAS, "baseline_differences": analysis.BASELINE_DIFFERENCES}
"""Columns of each table, stored ones and those that only the report shows."""


@dataclass(frozen=True)
class Panel:
    """Content of a section for one setting or for the whole study.

    Attributes:
        setting: Name of the setting; None for the study.
        sentences: Findings as text.
        pictures: Figures.
        tables: Tables, folded.
        downloads: Downloads of further tables.
        alarm: Whether the sentences are a warning.
    """

    setting: str | None = None
    sentences: Sequence[str] = ()
    pictures: Sequence[Picture] = ()
    tables: Sequence[Table] = ()
    downloads: Sequence[Download] = ()
    alarm: bool = False

    @property
    def label(self) -> str:
        """Display name of the setting."""
        return setting_label(self.setting or "")

    def __bool__(self) -> bool:
        return bool(self.sentences or self.pictures or self.tables or self.downloads)


@dataclass(frozen=True)
class Section:
    """Section of the page that answers one question.

    Attributes:
        name: Anchor of the section.
        title: Heading.
        short: Name in the table of contents.
        lead: Question that the section answers.
        panels: Content for the study, then for each setting.
    """

    name: str
    title: str
    short: str
    lead: str
    panels: list[Panel]


class Drawer:
    """Factory of the page's figures and tables that collects the underlying tables for download."""

    def __init__(self, data: ReportData, downloads: Downloads) -> None:
        self._sizes = data.parameters_per_layer
        self._downloads = downloads
        self._numbers = itertools.count()

    def picture(
        self, figure: Figure, name: str, note: str, downloads: Sequence[Download], *, folded: bool = True
    ) -> Picture:
        """Return a figure with a number that is unique on the page; if folded, readers see its title first."""
        return picture_of(figure, name, next(self._numbers), note, downloads, folded=folded)

    def tables_of(self, setting: SettingReport) -> Tables:
        """Return the tables of a setting, and the layer sizes if known."""
        return {**setting.tables, **({} if self._sizes is None else {SIZES: self._sizes})}

    def download(self, setting: SettingReport, name: str) -> Download:
        """Return a download button for a table of a setting, or for the layer sizes."""
        if name == SIZES and self._sizes is not None:
            return self._downloads.add(SIZES, "layer parameters", self._sizes)
        return self._downloads.add(
            f"{setting.setting}_{name}", NAMES.get(name, name.replace("_", " ")), setting.tables[name]
        )

    def pictures(self, setting: SettingReport, of: Sequence[FigureOf]) -> list[Picture]:
        """Return the given figures, without those that cannot be drawn; all but the first are folded."""
        tables = self.tables_of(setting)
        drawable = [figure for figure in of if figure.can_be_drawn(tables)]
        return [
            self.picture(
                figure.draw(tables),
                figure.name,
                figure.note,
                [self.download(setting, name) for name in figure.tables],
                folded=figure is not drawable[0],
            )
            for figure in drawable
        ]

    def table(self, setting: SettingReport, name: str, caption: str) -> list[Table]:
        """Return a table of a setting as a one-item list, or an empty list if it is missing or empty.

        The table `layers` joins accuracy, similarity and size of each layer, and has a caption of its own.
        """
        if name == "layers":
            return self._layers(setting)
        frame = setting.tables.get(name)
        if frame is None or frame.is_empty():
            return []
        schema = SCHEMAS.get(name, {})
        return [table_of(name, caption, frame, schema, self.download(setting, name))]

    def _layers(self, setting: SettingReport) -> list[Table]:
        tables = self.tables_of(setting)
        if "accuracy_per_layer" not in tables:
            return []
        name = pl.col("layer").cast(pl.String)  # enums of different tables may differ
        frame = tables["accuracy_per_layer"].with_columns(name)
        ends = {"low": "similarity_low", "high": "similarity_high"}
        schema = dict(SCHEMAS["accuracy_per_layer"])
        for other in ("similarity_to_full_gradient", SIZES):
            if other in tables:
                named = tables[other].with_columns(name).rename(ends, strict=False)
                frame = frame.join(named, on="layer", how="left", maintain_order="left")
                schema = SCHEMAS[other] | schema
        download = self._downloads.add(f"{setting.setting}_layers", "all layers", frame)
        caption = "The only layer" if len(frame) == 1 else f"All {len(frame)} layers"
        return [table_of("layers", caption, frame, schema, download)]
