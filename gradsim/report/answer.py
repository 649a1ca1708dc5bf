"""Select or project: the answer in words."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import polars as pl

from gradsim.analysis.selection import Criterion
from gradsim.plots.labels import count, percent, points, projection_label
from gradsim.report.data import SettingReport
from gradsim.report.tables import p_value

SIGNIFICANT = 0.05


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
    every = pl.concat(contests.values())
    verdict = (
        f"{_verdict(_selected_by(every, Criterion.ACCURACY))} {_nearness(_selected_by(every, Criterion.SIMILARITY))}"
    )
    return Answer(verdict.strip(), {name: list(_sentences(table)) for name, table in contests.items()})


def _selected_by(contests: pl.DataFrame, criterion: Criterion) -> pl.DataFrame:
    return contests.filter(pl.col("criterion") == str(criterion))


def _verdict(contests: pl.DataFrame) -> str:
    """Which of both finds more sources, in so many of the comparisons that chance does not explain it."""
    if contests.is_empty():
        return ""
    told_apart = contests.filter(pl.col("p_holm") < SIGNIFICANT)
    selected = told_apart.filter(pl.col("difference") > 0).height
    projected = told_apart.height - selected
    every = contests.height
    if selected and projected:
        return (
            f"It depends: selected layers find more sources in {selected} of {every} comparisons, fewer in {projected}."
        )
    never_fewer = "" if every == 1 else " comparisons, and fewer in none"
    if selected:
        how_often = _so_often(selected, every) + never_fewer
        return f"Select: whole layers find more sources than projections of the same size{how_often}."
    if projected:
        how_often = _so_often(projected, every) + never_fewer
        return f"Project: projections find more sources than whole layers of the same size{how_often}."
    return (
        "Either: whole layers and projections of the same size find equally many sources, as far as the queries tell."
    )


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
        yield (
            f"{layers.capitalize()} of {count(row['parameters'])} parameters in all, selected on other queries, find "
            f"{percent(row['selected_accuracy'])} of the sources; projected to {count(row['dimension'])} dimensions "
            f"({projection_label(row['projection'])}), the gradient finds {percent(row['projected_accuracy'])}. "
            f"The difference is {points(100 * row['difference'])} points (95\u00a0% interval "
            f"{points(100 * row['low'])} to {points(100 * row['high'])}; "
            f"p\u00a0=\u00a0{p_value(row['p_holm'])} after Holm\u2019s correction)."
        )
    for row in _selected_by(smallest, Criterion.SIMILARITY).head(1).iter_rows(named=True):
        yield (
            f"Similarity to the full gradient: {row['selected_similarity']:.3f} by layers selected for it, "
            f"{row['projected_similarity']:.3f} by the projection; a difference of "
            f"{points(row['similarity_difference'], 3)} ({points(row['similarity_low'], 3)} to "
            f"{points(row['similarity_high'], 3)})."
        )
