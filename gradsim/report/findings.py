"""What the tables say, in sentences and single numbers."""

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
    """An accuracy with its interval; shares between 0 and 1."""

    label: str
    accuracy: float
    low: float
    high: float
    chance: float


def chance_of(setting: SettingReport) -> float:
    """The accuracy of choosing any candidate."""
    return float(setting.tables["controls"].filter(pl.col("control") == CHANCE)["accuracy"][0])


def big_numbers(setting: SettingReport) -> list[BigNumber]:
    """Accuracy over all queries: the full gradient, each projection, BM25."""
    rows = setting.tables["accuracy"].filter(pl.col("group") == "all")
    chance = chance_of(setting)
    return [
        BigNumber(method_label(row["method"]), row["accuracy"], row["low"], row["high"], chance)
        for row in rows.iter_rows(named=True)
    ]


def summary_of(setting: SettingReport) -> list[str]:
    """How the full gradient compares with chance, and what holds where the source was forced in."""
    share = {(row["method"], row["group"]): row for row in setting.tables["accuracy"].iter_rows(named=True)}
    full, bm25 = share[FULL_GRADIENT, "all"], share[BM25, "all"]
    chance = chance_of(setting)
    if full["low"] > chance:
        against = "above chance"
    elif full["high"] < chance:
        against = "below chance"
    else:
        against = "not told apart from chance"
    sentences = [
        f"By the full gradient the true source is the most similar candidate for {percent(full['accuracy'])} of "
        f"{_queries(full['queries'], setting_label(setting.setting))} "
        f"(95 % interval {percent(full['low'])} to {percent(full['high'])}). That is {against}, "
        f"which is {percent(chance)}; BM25 ranks the true source first for "
        f"{percent(bm25['accuracy'])}."
    ]
    if (FULL_GRADIENT, "forced") in share:
        forced = share[FULL_GRADIENT, "forced"]
        sentences.append(
            f"For {_queries(forced['queries'])} BM25 did not list the true source and it was put among the "
            f"candidates by rule; of these the full gradient finds {percent(forced['accuracy'])} "
            f"({percent(forced['low'])} to {percent(forced['high'])}), with help that BM25 does not get."
        )
    elif setting.tables["decisions"]["forced"].null_count():
        sentences.append("It is not recorded for which queries the true source was put in by rule.")
    if full["tied"]:
        have = "has" if full["tied"] == 1 else "have"
        sentences.append(f"{_queries(full['tied'])} {have} several best candidates; each counts one over their number.")
    return sentences


def _queries(number: int, kind: str = "") -> str:
    """`1 paraphrased query`, `988 queries`."""
    return " ".join(filter(None, (str(number), kind, "query" if number == 1 else "queries")))


def left_out_of(setting: SettingReport) -> list[str]:
    """Return the sentence that names the layers without a gradient of their own; none where there is no such layer."""
    if setting.layer_dots is None or setting.layer_dots.noise.is_empty():
        return []
    names = [layer_label(name) for name in setting.layer_dots.noise.cast(pl.String)]
    number, hold, are = (f"{len(names)} layers", "hold", "are") if len(names) > 1 else ("1 layer", "holds", "is")
    return [f"{number} {hold} only rounding and {are} left out: {listed(names)}."]


def verdict_of(setting: SettingReport, precision: str) -> Verdict | None:
    """Return what a setting's audit came to; None where there is none."""
    audit = setting.tables.get("gradient_audit")
    return None if audit is None or audit.is_empty() else audit_verdict(audit, precision)


@dataclass(frozen=True)
class Alarm:
    """What stands at the head of a page whose numbers are wrong."""

    headline: str
    sentences: list[str]


def alarm_of(data: ReportData) -> Alarm | None:
    """Return what to say where audits failed; None where none did."""
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
    """Say what computing some dots again with plain autograd came to."""
    again = (
        f"{verdict.numbers} dots and self dots, those of {verdict.pairs} pairs in every layer, were computed again "
        "with plain autograd, one sample at a time; the longest and the most memorised sample are among theirs."
    )
    limit = f"the tolerance of {power_of_ten(verdict.tolerance)} of the norms\u2019 product"
    if verdict.passed:
        return f"{again} All agree within {limit}; the worst is off by {power_of_ten(verdict.worst)}."
    return (
        f"{again} In {verdict.beyond} of them the difference exceeds {limit}; the worst, the {verdict.where}, "
        f"is off by {power_of_ten(verdict.worst)}. Do not rely on this setting\u2019s numbers."
    )
