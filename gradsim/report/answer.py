"""Select or project: the answer as text."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import polars as pl

from gradsim.analysis.methods import BM25
from gradsim.analysis.selection import Criterion
from gradsim.analysis.similarity import FULL_GRADIENT
from gradsim.analysis.statistics import SIGNIFICANT
from gradsim.plots.labels import count, listed, method_label, percent, points, projection_label, setting_label
from gradsim.plots.projected import projections_lead, told_apart
from gradsim.report.data import ReportData, SettingReport
from gradsim.report.tables import p_value


@dataclass(frozen=True)
class Answer:
    """Answer over all settings, with the results of each.

    Attributes:
        verdict: Overall answer in one or two sentences.
        sentences: Sentences on the results of each setting, by setting.
    """

    verdict: str
    sentences: dict[str, list[str]]


def answer_of(settings: Sequence[SettingReport]) -> Answer | None:
    """Return the answer from `select_or_project` of all settings, or None if there is no comparison."""
    contests = {
        setting.setting: table
        for setting in settings
        if (table := setting.tables.get("select_or_project")) is not None and not table.is_empty()
    }
    if not contests:
        return None
    found = {name: _selected_by(table, Criterion.ACCURACY) for name, table in contests.items()}
    every = pl.concat(contests.values())
    verdict = f"{_verdict(found, len(settings))} {_nearness(_selected_by(every, Criterion.SIMILARITY))}"
    return Answer(verdict.strip(), {name: list(_sentences(table)) for name, table in contests.items()})


def _selected_by(contests: pl.DataFrame, criterion: Criterion) -> pl.DataFrame:
    return contests.filter(pl.col("criterion") == str(criterion))


def _verdict(found: Mapping[str, pl.DataFrame], n_settings: int) -> str:
    """Return which of the two is more accurate, by setting if settings disagree."""
    groups: dict[str, dict[str, pl.DataFrame]] = {outcome: {} for outcome in _OUTCOMES}
    for name, contests in found.items():
        if not contests.is_empty():
            groups[_outcome(contests)][name] = contests
    groups = {outcome: members for outcome, members in groups.items() if members}
    if len(groups) == 1 and sum(map(len, groups.values())) == n_settings:
        ((outcome, members),) = groups.items()
        return _of_all(outcome, pl.concat(members.values()))
    clauses = [
        _OUTCOMES[outcome].format(f"{listed([setting_label(name) for name in members])} queries")
        for outcome, members in groups.items()
    ]
    verdict = "; ".join(clauses)
    return f"{verdict[:1].upper()}{verdict[1:]}." if verdict else ""


_OUTCOMES = {
    "select": "select for {}",
    "project": "project for {}",
    "either way": "for {} it depends on the projection",
    "open": "for {} the difference is not significant",
}
"""Clause for each outcome of one or several settings."""


def _outcome(contests: pl.DataFrame) -> str:
    selected, projected = told_apart(contests)
    if selected and projected:
        return "either way"
    return "select" if selected else "project" if projected else "open"


def _of_all(outcome: str, contests: pl.DataFrame) -> str:
    """Return the verdict if all settings have the same outcome."""
    selected, projected = told_apart(contests)
    every = contests.height
    if outcome == "either way":
        return (
            f"It depends: selected layers are more accurate in {selected} of {every} comparisons, "
            f"less accurate in {projected}."
        )
    if outcome == "open":
        return "Undecided: selected layers and projections do not differ significantly in accuracy."
    how_often = _so_often(selected + projected, every) + ("" if every == 1 else " comparisons, less accurate in none")
    if outcome == "select":
        return f"Select: whole layers are more accurate than projections of the same size{how_often}."
    return f"Project: projections are more accurate than whole layers of the same size{how_often}."


def _nearness(contests: pl.DataFrame) -> str:
    """Return which of the two is more similar to the full gradient; empty if neither is."""
    selected = contests.filter(pl.col("similarity_low") > 0).height
    projected = contests.filter(pl.col("similarity_high") < 0).height
    if selected and projected:
        return (
            f"Projections are closer to the full gradient in {projected} of {contests.height} comparisons, "
            f"layers selected by similarity in {selected}."
        )
    if projected:
        return f"Projections are closer to the full gradient{_so_often(projected, contests.height)}."
    if selected:
        return f"Layers selected by similarity are closer to the full gradient{_so_often(selected, contests.height)}."
    return ""


def _so_often(number: int, comparisons: int) -> str:
    return "" if comparisons == 1 else f" in {number} of {comparisons}"


def _sentences(contests: pl.DataFrame) -> Iterator[str]:
    """Yield the comparison of the smallest projection with layers selected by accuracy and by similarity.

    Differences have the signs of the figure.
    """
    order, sign = ("projected minus selected", -1) if projections_lead(contests) else ("selected minus projected", 1)
    smallest = contests.filter(pl.col("dimension") == pl.col("dimension").min())
    for row in _selected_by(smallest, Criterion.ACCURACY).head(1).iter_rows(named=True):
        layers = "one layer" if row["layers"] == 1 else f"{row['layers']} layers"
        apart = "" if row["p_holm"] < SIGNIFICANT else " The difference is not significant."
        low, high = sorted(100 * sign * row[end] for end in ("low", "high"))
        yield (
            f"Layers with at most {count(row['dimension'])} parameters, selected on other queries, "
            f"reach {percent(row['selected_accuracy'])} accuracy (on all queries: {layers} with "
            f"{count(row['parameters'])} parameters); the gradient projected to {count(row['dimension'])} dimensions "
            f"({projection_label(row['projection'])}) reaches {percent(row['projected_accuracy'])}. "
            f"The difference, {order}, is {points(100 * sign * row['difference'])} points (95\u00a0% interval "
            f"{points(low)} to {points(high)}; "
            f"p\u00a0=\u00a0{p_value(row['p_holm'])} after Holm\u2019s correction).{apart}"
        )
    for row in _selected_by(smallest, Criterion.SIMILARITY).head(1).iter_rows(named=True):
        low, high = sorted(sign * row[f"similarity_{end}"] for end in ("low", "high"))
        yield (
            f"Similarity to the full gradient: {row['selected_similarity']:.3f} for layers selected by similarity, "
            f"{row['projected_similarity']:.3f} for the projection; the difference, {order}, is "
            f"{points(sign * row['similarity_difference'], 3)} ({points(low, 3)} to {points(high, 3)})."
        )


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
    return setting.tables["accuracy"]["method"].unique(maintain_order=True).to_list()


def _compared(setting: SettingReport) -> set[str]:
    """Return the projections in `select_or_project`, named as in `accuracy`."""
    table = setting.tables.get("select_or_project")
    if table is None:
        return set()
    return {
        f"{projection}-{dimension}" for projection, dimension in table.select("projection", "dimension").iter_rows()
    }
