"""Findings as sentences and key numbers."""

from dataclasses import dataclass

import polars as pl

from gradsim.analysis.audit import Verdict, audit_verdict
from gradsim.analysis.controls import CHANCE
from gradsim.analysis.methods import BM25
from gradsim.analysis.similarity import FULL_GRADIENT
from gradsim.plots.labels import layer_label, listed, method_label, percent, power_of_ten, setting_label
from gradsim.report.data import ReportData, SettingReport


@dataclass(frozen=True)
class BigNumber:
    """Accuracy with its interval and chance level, as fractions."""

    label: str
    accuracy: float
    low: float
    high: float
    chance: float


def chance_of(setting: SettingReport) -> float:
    """Return the accuracy of a random choice among the candidates."""
    return float(setting.tables["controls"].filter(pl.col("control") == CHANCE)["accuracy"][0])


def big_numbers(setting: SettingReport) -> list[BigNumber]:
    """Return the accuracy of every method over all queries."""
    rows = setting.tables["accuracy"].filter(pl.col("group") == "all")
    chance = chance_of(setting)
    return [
        BigNumber(method_label(row["method"]), row["accuracy"], row["low"], row["high"], chance)
        for row in rows.iter_rows(named=True)
    ]


def summary_of(setting: SettingReport) -> list[str]:
    """Return sentences on the full gradient compared with chance, on forced queries and on ties."""
    share = {(row["method"], row["group"]): row for row in setting.tables["accuracy"].iter_rows(named=True)}
    full, bm25 = share[FULL_GRADIENT, "all"], share[BM25, "all"]
    chance = chance_of(setting)
    if full["low"] > chance:
        against = "above chance"
    elif full["high"] < chance:
        against = "below chance"
    else:
        against = "not significantly different from chance"
    sentences = [
        f"The full gradient ranks the true source first for {percent(full['accuracy'])} of "
        f"{_queries(full['queries'], setting_label(setting.setting))} "
        f"(95 % interval {percent(full['low'])} to {percent(full['high'])}). That is {against} "
        f"({percent(chance)}); BM25 ranks the true source first for "
        f"{percent(bm25['accuracy'])}."
    ]
    if (FULL_GRADIENT, "forced") in share:
        forced = share[FULL_GRADIENT, "forced"]
        sentences.append(
            f"For {_queries(forced['queries'])}, BM25 did not list the true source, and it was added to the "
            f"candidates (forced); the full gradient finds {percent(forced['accuracy'])} of these sources "
            f"({percent(forced['low'])} to {percent(forced['high'])}), an advantage that BM25 does not have."
        )
    elif setting.tables["decisions"]["forced"].null_count():
        sentences.append("It is not recorded for which queries the true source was forced.")
    if full["tied"]:
        have = "has" if full["tied"] == 1 else "have"
        sentences.append(f"{_queries(full['tied'])} {have} several best candidates; a tie of n candidates counts 1/n.")
    return sentences


def _queries(number: int, kind: str = "") -> str:
    """Format a number of queries: `1 paraphrased query`, `988 queries`."""
    return " ".join(filter(None, (str(number), kind, "query" if number == 1 else "queries")))


def left_out_of(setting: SettingReport) -> list[str]:
    """Return a sentence on the layers left out because their gradients are rounding noise; empty if there are none."""
    if setting.layer_dots is None or setting.layer_dots.noise.is_empty():
        return []
    names = [layer_label(name) for name in setting.layer_dots.noise]
    layers, gradients = (
        (f"{len(names)} layers are", "their gradients are") if len(names) > 1 else ("1 layer is", "its gradient is")
    )
    return [f"{layers} left out because {gradients} only rounding noise: {listed(names)}."]


def verdict_of(setting: SettingReport, precision: str) -> Verdict | None:
    """Return the verdict of a setting's audit, or None if there is no audit."""
    audit = setting.tables.get("gradient_audit")
    return None if audit is None or audit.is_empty() else audit_verdict(audit, precision)


@dataclass(frozen=True)
class Alarm:
    """Warning at the top of a page with incorrect numbers."""

    headline: str
    sentences: list[str]


def alarm_of(data: ReportData) -> Alarm | None:
    """Return a warning if an audit failed, otherwise None."""
    verdicts = {setting.setting: verdict_of(setting, data.precision) for setting in data.settings}
    failed = {setting: verdict for setting, verdict in verdicts.items() if verdict and not verdict.passed}
    if not failed:
        return None
    names = [setting_label(setting) for setting in failed]
    whose = "this study\u2019s numbers" if len(failed) == len(verdicts) else f"the numbers of {listed(names)} queries"
    headline = f"Do not rely on {whose}: the audit failed"
    return Alarm(
        headline, [f"{setting_label(setting).capitalize()}: {verdict}." for setting, verdict in failed.items()]
    )


def proof_of(verdict: Verdict) -> str:
    """Return the result of an audit as text."""
    again = (
        f"{verdict.numbers} inner products and squared norms ({verdict.pairs} pairs in every layer) were computed "
        "again with plain autograd, one sample at a time. The pairs include the longest and the most memorised sample."
    )
    limit = f"the tolerance of {power_of_ten(verdict.tolerance)} relative to the product of the norms"
    if verdict.passed:
        return f"{again} All agree within {limit}; the largest error is {power_of_ten(verdict.worst)}."
    return (
        f"{again} The error of {verdict.beyond} exceeds {limit}; the largest, {power_of_ten(verdict.worst)}, "
        f"is that of the {verdict.where}. Do not rely on this setting\u2019s numbers."
    )
