"""Projections without selected layers to compare with, and the reasons."""

from collections.abc import Sequence

import polars as pl

from gradsim.analysis.methods import BM25
from gradsim.analysis.similarity import FULL_GRADIENT
from gradsim.plots.labels import listed, method_label
from gradsim.report.data import ReportData, SettingReport


def alone_of(setting: SettingReport, parameters_per_layer: pl.DataFrame | None) -> list[str]:
    """Return one sentence per reason why projections are missing from `select_or_project`.

    Args:
        setting: Setting to check.
        parameters_per_layer: Table `parameters_per_layer`; None if the study has no model.
    """
    projections = [name for name in _methods(setting) if name not in {FULL_GRADIENT, BM25, *_compared(setting)}]
    if not projections:
        return []
    if parameters_per_layer is None or parameters_per_layer["parameters"].null_count():
        return [_said(projections, "layer sizes are unknown.")]
    smallest = int(parameters_per_layer["parameters"].to_numpy().min())
    small = [name for name in projections if int(name.rpartition("-")[2]) < smallest]
    others = [name for name in projections if name not in small]
    said = []
    if small:
        what = "it has" if len(small) == 1 else "they have"
        said.append(_said(small, f"{what} fewer dimensions than the smallest layer has parameters ({smallest:,})."))
    if others:
        one = len(setting.tables["decisions"]) == 1
        said.append(_said(others, "one query cannot be split in half." if one else "the comparison is not available."))
    return said


def unanswered(data: ReportData) -> str:
    """Return why no setting has an answer."""
    reasons = [reason for setting in data.settings for reason in alone_of(setting, data.parameters_per_layer)]
    return f"No answer is available. {' '.join(dict.fromkeys(reasons)) or 'Nothing was projected.'}"


def _said(projections: Sequence[str], reason: str) -> str:
    names = [f"{name} ({size})" for name, size in (method_label(method).rsplit(", ", 1) for method in projections)]
    return f"There are no selected layers to compare with {listed(names)}: {reason}"


def _methods(setting: SettingReport) -> list[str]:
    return setting.tables["accuracy"]["method"].cast(pl.String).unique(maintain_order=True).to_list()


def _compared(setting: SettingReport) -> set[str]:
    """Return the projections in `select_or_project`, named as in `accuracy`."""
    table = setting.tables.get("select_or_project")
    if table is None:
        return set()
    return {
        f"{projection}-{dimension}" for projection, dimension in table.select("projection", "dimension").iter_rows()
    }
