"""Select or project: the answer in words."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import polars as pl

from gradsim.analysis.selection import Criterion
from gradsim.analysis.statistics import SIGNIFICANT
from gradsim.plots.labels import count, listed, percent, points, projection_label, setting_label
from gradsim.plots.projected import told_apart
from gradsim.report.data import SettingReport
from gradsim.report.tables import p_value


@dataclass(frozen=True)
class Answer:
    """The answer of all settings together, and what each says.

    Attributes:
        verdict: a sentence or two.
        sentences: setting -> what is found there.
    """

    verdict: str
    sentences: dict[str, list[str]]


def answer_of(settings: Sequence[SettingReport]) -> Answer | None:
    """What `select_or_project` says of all settings; None where nothing was set beside a projection."""
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
    """Which of both finds more sources, and in which settings, if they do not agree."""
    groups: dict[str, dict[str, pl.DataFrame]] = {outcome: {} for outcome in _OUTCOMES}
    for name, contests in found.items():
        if not contests.is_empty():
            groups[_outcome(contests)][name] = contests
    groups = {outcome: members for outcome, members in groups.items() if members}
    if len(groups) == 1 and sum(map(len, groups.values())) == n_settings:
        ((outcome, members),) = groups.items()
        return _of_all(outcome, pl.concat(members.values()))
    clauses = [
        _OUTCOMES[outcome].format(
            f"{listed([setting_label(name) for name in members])} {'ones' if place else 'queries'}"
        )
        for place, (outcome, members) in enumerate(groups.items())
    ]
    verdict = "; ".join(clauses)
    return f"{verdict[:1].upper()}{verdict[1:]}." if verdict else ""


_OUTCOMES = {
    "select": "select for {}",
    "project": "project for {}",
    "either way": "for {} it depends on the projection",
    "open": "for {} the two are not told apart",
}
"""How one or several settings turned out -> the words for it."""


def _outcome(contests: pl.DataFrame) -> str:
    selected, projected = told_apart(contests)
    if selected and projected:
        return "either way"
    return "select" if selected else "project" if projected else "open"


def _of_all(outcome: str, contests: pl.DataFrame) -> str:
    """Where all settings turned out alike."""
    selected, projected = told_apart(contests)
    every = contests.height
    if outcome == "either way":
        return (
            f"It depends: selected layers find more sources in {selected} of {every} comparisons, fewer in {projected}."
        )
    if outcome == "open":
        return "Select and project are not told apart: the queries do not show which of the two finds more sources."
    how_often = _so_often(selected + projected, every) + ("" if every == 1 else " comparisons, and fewer in none")
    if outcome == "select":
        return f"Select: whole layers find more sources than projections of the same size{how_often}."
    return f"Project: projections find more sources than whole layers of the same size{how_often}."


def _nearness(contests: pl.DataFrame) -> str:
    """Which of both is more like the full gradient."""
    selected = contests.filter(pl.col("similarity_low") > 0).height
    projected = contests.filter(pl.col("similarity_high") < 0).height
    if selected and projected:
        return (
            f"Projections are nearer to the full gradient in {projected} of {contests.height} comparisons, "
            f"layers selected for it in {selected}."
        )
    if projected:
        return f"Projections are nearer to the full gradient{_so_often(projected, contests.height)}."
    if selected:
        return f"Layers selected for it are nearer to the full gradient{_so_often(selected, contests.height)}."
    return ""


def _so_often(number: int, comparisons: int) -> str:
    return "" if comparisons == 1 else f" in {number} of {comparisons}"


def _sentences(contests: pl.DataFrame) -> Iterator[str]:
    """The smallest projection beside what was selected for accuracy, and beside what was selected for similarity."""
    smallest = contests.filter(pl.col("dimension") == pl.col("dimension").min())
    for row in _selected_by(smallest, Criterion.ACCURACY).head(1).iter_rows(named=True):
        layers = "one layer" if row["layers"] == 1 else f"{row['layers']} layers"
        apart = "" if row["p_holm"] < SIGNIFICANT else " The two are not told apart."
        yield (
            f"Layers with at most {count(row['dimension'])} parameters, selected on other queries, find "
            f"{percent(row['selected_accuracy'])} of the sources (on all queries: {layers} of "
            f"{count(row['parameters'])}); projected to {count(row['dimension'])} dimensions "
            f"({projection_label(row['projection'])}), the gradient finds {percent(row['projected_accuracy'])}. "
            f"The difference is {points(100 * row['difference'])} points (95\u00a0% interval "
            f"{points(100 * row['low'])} to {points(100 * row['high'])}; "
            f"p\u00a0=\u00a0{p_value(row['p_holm'])} after Holm\u2019s correction).{apart}"
        )
    for row in _selected_by(smallest, Criterion.SIMILARITY).head(1).iter_rows(named=True):
        yield (
            f"Similarity to the full gradient: {row['selected_similarity']:.3f} by layers selected for it, "
            f"{row['projected_similarity']:.3f} by the projection; a difference of "
            f"{points(row['similarity_difference'], 3)} ({points(row['similarity_low'], 3)} to "
            f"{points(row['similarity_high'], 3)})."
        )
