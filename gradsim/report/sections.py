"""What a section of the page is made of."""

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
    "projection_audit": "projections beside theory",
    "retrieval": "retrieval",
    "best_similarity": "best similarities",
    "decisions": "decisions",
    "gradient_audit": "dots by plain autograd",
    "divergence": "divergence of queries",
    "similarity_over_layers": "similarity over layers",
}
"""Table of a setting -> how the page calls it, in the page's order."""


@dataclass(frozen=True)
class Panel:
    """What a section says of one setting, or of the study.

    Attributes:
        setting: its name; None for the study.
        sentences: what the numbers say.
        pictures: figures.
        tables: small ones are shown, large ones folded.
        downloads: of tables that are neither.
        alarm: whether the sentences are a warning.
    """

    setting: str | None = None
    sentences: Sequence[str] = ()
    pictures: Sequence[Picture] = ()
    tables: Sequence[Table] = ()
    downloads: Sequence[Download] = ()
    alarm: bool = False

    @property
    def label(self) -> str:
        """The setting as readers see it."""
        return setting_label(self.setting or "")

    def __bool__(self) -> bool:
        return bool(self.sentences or self.pictures or self.tables or self.downloads)


@dataclass(frozen=True)
class Section:
    """A part of the page that answers one question.

    Attributes:
        name: its anchor.
        title: its heading.
        short: its name in the contents.
        lead: what the question is.
        panels: what is known, first of the study, then of each setting.
    """

    name: str
    title: str
    short: str
    lead: str
    panels: list[Panel]


class Drawer:
    """Makes pictures and tables of a page, and keeps the tables behind them for download."""

    def __init__(self, data: ReportData, downloads: Downloads) -> None:
        self._sizes = data.parameters_per_layer
        self._downloads = downloads
        self._numbers = itertools.count()

    def picture(self, figure: Figure, name: str, note: str, downloads: Sequence[Download]) -> Picture:
        """A figure.

        Args:
            figure: one of `gradsim.plots`.
            name: the same for all settings.
            note: how to read it.
            downloads: the tables behind it.
        """
        return picture_of(figure, name, next(self._numbers), note, downloads)

    def tables_of(self, setting: SettingReport) -> Tables:
        """A setting's tables, and the sizes of the layers if they are known."""
        return {**setting.tables, **({} if self._sizes is None else {SIZES: self._sizes})}

    def download(self, setting: SettingReport, name: str, *, of_setting: bool = False) -> Download:
        """A button for a table of a setting, or for the sizes of the layers.

        Args:
            setting: the setting.
            name: of the table.
            of_setting: whether the button says which setting it is of.
        """
        if name == SIZES and self._sizes is not None:
            return self._downloads.add(SIZES, "parameters of the layers", self._sizes)
        known_as = NAMES.get(name, name.replace("_", " "))
        label = f"{setting_label(setting.setting)}: {known_as}" if of_setting else known_as
        return self._downloads.add(f"{setting.setting}_{name}", label, setting.tables[name])

    def pictures(self, setting: SettingReport, of: Sequence[FigureOf]) -> list[Picture]:
        """Those of some figures that can be drawn."""
        tables = self.tables_of(setting)
        return [
            self.picture(
                figure.draw(tables), figure.name, figure.note, [self.download(setting, name) for name in figure.tables]
            )
            for figure in of
            if figure.can_be_drawn(tables)
        ]

    def table(self, setting: SettingReport, name: str, caption: str, *, folded: bool = False) -> list[Table]:
        """A table of a setting in a list; an empty one if it is absent or has no rows."""
        frame = setting.tables.get(name)
        if frame is None or frame.is_empty():
            return []
        schema = analysis.SCHEMAS.get(name, {})
        return [table_of(name, caption, frame, schema, self.download(setting, name), folded=folded)]

    def layers(self, setting: SettingReport) -> list[Table]:
        """All that is known of each layer in one table."""
        tables = self.tables_of(setting)
        if "accuracy_per_layer" not in tables:
            return []
        name = pl.col("layer").cast(pl.String)  # Enums of several tables need not be equal
        frame = tables["accuracy_per_layer"].with_columns(name)
        ends = {"low": "similarity_low", "high": "similarity_high"}
        schema = dict(analysis.SCHEMAS["accuracy_per_layer"])
        for other in ("similarity_to_full_gradient", SIZES):
            if other in tables:
                named = tables[other].with_columns(name).rename(ends, strict=False)
                frame = frame.join(named, on="layer", how="left", maintain_order="left")
                schema = analysis.SCHEMAS[other] | schema
        download = self._downloads.add(f"{setting.setting}_layers", "all layers", frame)
        caption = "The only layer" if len(frame) == 1 else f"All {len(frame)} layers"
        return [table_of("layers", caption, frame, schema, download, folded=True)]
