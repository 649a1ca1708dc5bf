"""Projections that have no selected layers beside them, and why."""

from collections.abc import Sequence

import polars as pl

from gradsim.analysis.methods import BM25
from gradsim.analysis.similarity import FULL_GRADIENT
from gradsim.plots.labels import listed, method_label
from gradsim.report.data import ReportData, SettingReport


def alone_of(setting: SettingReport, parameters_per_layer: pl.DataFrame | None) -> list[str]:
    """Which of a setting's projections `select_or_project` lacks, and why, in one sentence for each reason.

    Args:
        setting: the setting.
        parameters_per_layer: the table of that name; None if the study has no model.
    """
    projections = [name for name in _methods(setting) if name not in {FULL_GRADIENT, BM25, *_compared(setting)}]
    if not projections:
        return []
    if parameters_per_layer is None or parameters_per_layer["parameters"].null_count():
        return [_said(projections, "the layers\u2019 sizes are unknown.")]
    smallest = int(parameters_per_layer["parameters"].to_numpy().min())
    small = [name for name in projections if int(name.rpartition("-")[2]) < smallest]
    others = [name for name in projections if name not in small]
    said = []
    if small:
        what = "it has" if len(small) == 1 else "they have"
        said.append(_said(small, f"{what} fewer dimensions than the smallest layer has parameters, {smallest:,}."))
    if others:
        one = len(setting.tables["decisions"]) == 1
        said.append(_said(others, "one query has no halves." if one else "the comparison is not at hand."))
    return said


def unanswered(data: ReportData) -> str:
    """Why no setting has an answer."""
    reasons = [reason for setting in data.settings for reason in alone_of(setting, data.parameters_per_layer)]
    return f"Not to be said here. {' '.join(dict.fromkeys(reasons)) or 'Nothing was projected.'}"


def _said(projections: Sequence[str], reason: str) -> str:
    names = [f"{name} ({size})" for name, size in (method_label(method).rsplit(", ", 1) for method in projections)]
    return f"No selected layers stand beside {listed(names)}: {reason}"


def _methods(setting: SettingReport) -> list[str]:
    return setting.tables["accuracy"]["method"].cast(pl.String).unique(maintain_order=True).to_list()


def _compared(setting: SettingReport) -> set[str]:
    """Projections in `select_or_project`, as `accuracy` names them."""
    table = setting.tables.get("select_or_project")
    if table is None:
        return set()
    return {
        f"{projection}-{dimension}" for projection, dimension in table.select("projection", "dimension").iter_rows()
    }
