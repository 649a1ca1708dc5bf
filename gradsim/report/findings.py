"""What the tables say, in sentences and single numbers."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import polars as pl

from gradsim.analysis.audit import Verdict
from gradsim.analysis.controls import CHANCE
from gradsim.analysis.retrieval import BM25
from gradsim.analysis.similarity import FULL_GRADIENT
from gradsim.plots.labels import listed, method_label, percent, power_of_ten, setting_label
from gradsim.report.data import SettingReport

MOST_DECISIONS = 12
FEWEST_DECISIONS = 3

Messages = Mapping[str, list[tuple[str, str]]]


@dataclass(frozen=True)
class BigNumber:
    """An accuracy with its interval; shares between 0 and 1."""

    label: str
    accuracy: float
    low: float
    high: float
    chance: float


@dataclass(frozen=True)
class Text:
    """One of the samples that stand side by side; no messages: the text is not at hand."""

    role: str
    id: str
    similarity: float | None
    messages: list[tuple[str, str]]


@dataclass(frozen=True)
class Decision:
    """A query that is worth reading."""

    query_id: str
    verdict: str
    texts: list[Text]


def chance_of(setting: SettingReport) -> float:
    """The accuracy of choosing any candidate."""
    return float(setting.controls.filter(pl.col("control") == CHANCE)["accuracy"][0])


def big_numbers(setting: SettingReport) -> list[BigNumber]:
    """Accuracy over all queries: the full gradient, each projection, BM25."""
    rows = setting.accuracy.filter(pl.col("group") == "all")
    chance = chance_of(setting)
    return [
        BigNumber(method_label(row["method"]), row["accuracy"], row["low"], row["high"], chance)
        for row in rows.iter_rows(named=True)
    ]


def summary_of(setting: SettingReport) -> list[str]:
    """How the full gradient compares with chance, and what holds where the source was forced in."""
    share = {(row["method"], row["group"]): row for row in setting.accuracy.iter_rows(named=True)}
    full, bm25 = share[FULL_GRADIENT, "all"], share[BM25, "all"]
    chance = chance_of(setting)
    if full["low"] > chance:
        against = "above chance"
    elif full["high"] < chance:
        against = "below chance"
    else:
        against = "not told apart from chance"
    sentences = [
        f"Of {full['queries']} {setting_label(setting.setting)} queries, "
        f"{percent(full['accuracy'])} are most similar to their true source by the full gradient "
        f"(95 % interval {percent(full['low'])} to {percent(full['high'])}). That is {against}, "
        f"which is {percent(chance)}; BM25 ranks the true source first for "
        f"{percent(bm25['accuracy'])}."
    ]
    if (FULL_GRADIENT, "forced") in share:
        forced = share[FULL_GRADIENT, "forced"]
        sentences.append(
            f"For {forced['queries']} queries BM25 did not list the true source and it was put among the "
            f"candidates by rule; of these the full gradient finds {percent(forced['accuracy'])} "
            f"({percent(forced['low'])} to {percent(forced['high'])}), with help that BM25 does not get."
        )
    elif setting.decisions["forced"].null_count():
        sentences.append("It is not recorded for which queries the true source was put in by rule.")
    if full["tied"]:
        sentences.append(f"{full['tied']} queries have several best candidates; each counts one over their number.")
    return sentences


def proof_of(verdict: Verdict) -> str:
    """What computing some dots again with plain autograd came to."""
    again = (
        f"{verdict.numbers} dots and self dots, those of {verdict.pairs} pairs drawn at random in every layer, were "
        "computed again with plain autograd, one sample at a time."
    )
    limit = f"the tolerance of {power_of_ten(verdict.tolerance)} of the norms\u2019 product"
    if verdict.passed:
        return f"{again} All agree within {limit}; the worst is off by {power_of_ten(verdict.worst)}."
    return (
        f"{again} In {verdict.beyond} of them the difference exceeds {limit}; the worst, the {verdict.where}, "
        f"is off by {power_of_ten(verdict.worst)}. Do not rely on this setting\u2019s numbers."
    )


def interesting_decisions(setting: SettingReport, queries: Messages, originals: Messages) -> tuple[str, list[Decision]]:
    """The wrong decisions, the clearest first, filled up with the closest right ones; and what they are."""
    # A query without another candidate is nothing to read.
    ordered = setting.decisions.filter(pl.col("margin").is_not_null()).sort("margin", maintain_order=True)
    wrong = ordered.filter(pl.col("credit") < 1)
    close = ordered.filter(pl.col("credit") == 1).head(max(0, FEWEST_DECISIONS - len(wrong)))
    shown = pl.concat([wrong.head(MOST_DECISIONS), close])

    parts = []
    if len(wrong):
        number = f"{MOST_DECISIONS} of {len(wrong)}" if len(wrong) > MOST_DECISIONS else f"all {len(wrong)}"
        how = "wrongly or by a tie" if (wrong["credit"] > 0).any() else "wrongly"
        parts.append(f"{number} queries decided {how}, the clearest first")
    if len(close):
        parts.append(f"the {len(close)} closest that were decided rightly")
    decisions = [_decision(row, queries, originals) for row in shown.iter_rows(named=True)]
    return (listed(parts) if parts else "none, for no query has another candidate"), decisions


def _decision(row: dict[str, Any], queries: Messages, originals: Messages) -> Decision:
    query, other = str(row["query_id"]), str(row["best_other_id"])
    source_similarity, other_similarity = row["source_similarity"], row["best_other_similarity"]
    verdict = {1.0: "right", 0.0: "wrong"}.get(row["credit"], "tied")
    return Decision(
        query_id=query,
        verdict=verdict,
        texts=[
            Text("query", query, None, queries.get(query, [])),
            Text("true source", query, source_similarity, originals.get(query, [])),
            Text(
                "chosen candidate" if verdict == "wrong" else "best other candidate",
                other,
                other_similarity,
                originals.get(other, []),
            ),
        ],
    )
