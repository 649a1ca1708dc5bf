"""The headline: whether the full gradient's lead over what needs no gradients is significant."""

from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from gradsim.analysis.statistics import SIGNIFICANT
from gradsim.plots.labels import baseline_label, listed, points, setting_label
from gradsim.report.data import SettingReport
from gradsim.report.tables import p_value


@dataclass(frozen=True)
class Lead:
    """Lead of the full gradient over a baseline on the same queries, with its interval, in percentage points.

    Attributes:
        baseline: Name of the baseline as in the table `baseline_differences`.
        difference: Accuracy of the full gradient minus accuracy of the baseline; negative if it is behind.
        low: Lower end of the 95 % interval.
        high: Upper end of the 95 % interval.
        p_holm: p-value with Holm's correction.
        majority: Number of queries with more credit for the full gradient minus number of those with less.
    """

    baseline: str
    difference: float
    low: float
    high: float
    p_holm: float
    majority: int

    @property
    def label(self) -> str:
        """What is compared."""
        return f"Lead over {baseline_label(self.baseline)}"

    @property
    def value(self) -> str:
        """The difference with its sign."""
        return f"{points(self.difference)} points"

    @property
    def uncertainty(self) -> str:
        """Interval, significance and p-value."""
        verdict = "significant" if self.outcome else "not significant"
        interval = f"{points(self.low)} to {points(self.high)}"
        return f"95\u00a0% interval {interval}; {verdict} (p\u00a0=\u00a0{p_value(self.p_holm)})"

    @property
    def outcome(self) -> int:
        """1 if the full gradient is significantly ahead, -1 if it is significantly behind, otherwise 0.

        The test counts queries, whatever their credit; with many ties, the difference can have another sign.
        """
        if self.p_holm >= SIGNIFICANT or self.difference * self.majority <= 0:
            return 0
        return 1 if self.difference > 0 else -1


def leads_of(setting: SettingReport) -> list[Lead]:
    """Return the full gradient's lead over each baseline of a setting."""
    differences = setting.tables["baseline_differences"].select(
        "baseline",
        pl.col("difference", "low", "high") * 100,
        "p_holm",
        pl.col("only_full") - pl.col("only_baseline"),
    )
    return [Lead(*row) for row in differences.iter_rows()]


def headline_of(settings: Sequence[SettingReport]) -> str:
    """Return for each baseline whether the full gradient's lead is significant, by setting if settings disagree."""
    outcomes: dict[str, dict[str, int]] = {}
    for setting in settings:
        for lead in leads_of(setting):
            outcomes.setdefault(lead.baseline, {})[setting.setting] = lead.outcome
    clauses = [_clause(baseline, found) for baseline, found in outcomes.items()]
    return f"The full gradient has {listed(clauses)}".removesuffix(",")


def _clause(baseline: str, outcomes: dict[str, int]) -> str:
    """Return the lead over one baseline, from 1, 0 or -1 by setting."""
    ahead, behind = ([name for name, outcome in outcomes.items() if outcome == sign] for sign in (1, -1))
    lead = f"{'a' if ahead else 'no'} significant lead over {baseline_label(baseline)}{_where(ahead, len(outcomes))}"
    return f"{lead}, which is significantly better{_where(behind, len(outcomes))}," if behind else lead


def _where(settings: Sequence[str], n_settings: int) -> str:
    """Return in which of several settings something holds."""
    if not settings or n_settings == 1:
        return ""
    if len(settings) == n_settings:
        return " in every setting"
    return f" for {listed([setting_label(name) for name in settings])} queries"
