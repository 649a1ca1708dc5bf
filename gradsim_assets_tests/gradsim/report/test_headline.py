"""Whether the gradient's lead is significant, in words."""

import polars as pl
import pytest

from gradsim.report import SettingReport
from gradsim.report.headline import headline_of, leads_of

AHEAD, BEHIND, OPEN = (0.2, 0.001), (-0.3, 0.002), (0.1, 0.2)


def setting(name: str, *leads: tuple[float, float]) -> SettingReport:
    rows = [
        {
            "baseline": baseline,
            "difference": difference,
            "low": difference - 0.15,
            "high": difference + 0.1,
            "p_holm": p,
            "only_full": 5 if difference > 0 else 3,
            "only_baseline": 4,
        }
        for baseline, (difference, p) in zip(("bm25", "answer_length"), leads, strict=False)
    ]
    return SettingReport(name, {"baseline_differences": pl.DataFrame(rows)})


@pytest.mark.parametrize(
    ("leads", "said"),
    [
        ({"a": [AHEAD, AHEAD]}, "a significant lead over BM25 and a significant lead over answer length alone"),
        ({"a": [OPEN, AHEAD]}, "no significant lead over BM25 and a significant lead over answer length alone"),
        ({"a": [BEHIND]}, "no significant lead over BM25, which is significantly better"),
        (
            {"a": [AHEAD, OPEN], "b": [AHEAD, BEHIND]},
            "a significant lead over BM25 in every setting and no significant lead over answer length alone, which is "
            "significantly better for b queries",
        ),
        (
            {"a": [BEHIND, AHEAD], "b_c": [AHEAD, OPEN], "d": [OPEN]},
            "a significant lead over BM25 for b-c queries, which is significantly better for a queries, and a "
            "significant lead over answer length alone for a queries",
        ),
    ],
)
def test_headline(leads, said: str) -> None:
    settings = [setting(name, *of) for name, of in leads.items()]
    assert headline_of(settings) == f"The full gradient has {said}"


def test_a_lead_has_its_uncertainty() -> None:
    found = leads_of(setting("a", BEHIND, OPEN))
    assert [(lead.label, lead.value) for lead in found] == [
        ("Lead over BM25", "−30.0 points"),
        ("Lead over answer length alone", "+10.0 points"),
    ]
    assert [lead.uncertainty.replace("\u00a0", " ") for lead in found] == [
        "95 % interval −45.0 to −20.0; significant (p = 0.002)",
        "95 % interval −5.0 to +20.0; not significant (p = 0.2)",
    ]


def test_a_difference_against_the_majority_of_queries_is_not_significant() -> None:
    """Many ties for the gradient, and fewer, but whole finds of the baseline."""
    tied = setting("a", BEHIND).tables["baseline_differences"].with_columns(only_full=pl.lit(20))
    (lead,) = leads_of(SettingReport("a", {"baseline_differences": tied}))
    assert (lead.outcome, lead.p_holm) == (0, 0.002)
