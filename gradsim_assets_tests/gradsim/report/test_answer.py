"""Select or project, in words."""

import polars as pl
import pytest

from gradsim.report import SettingReport
from gradsim.report.answer import answer_of


def contest(**changes: object) -> dict[str, object]:
    return {
        "projection": "gaussian",
        "dimension": 11_778_048,
        "criterion": "accuracy",
        "layers": 2,
        "parameters": 8_388_608,
        "selected_accuracy": 0.356,
        "projected_accuracy": 0.228,
        "difference": 0.128,
        "low": 0.097,
        "high": 0.158,
        "p_holm": 1e-15,
        "selected_similarity": 0.9,
        "projected_similarity": 0.99,
        "similarity_difference": -0.09,
        "similarity_low": -0.1,
        "similarity_high": -0.08,
    } | changes


def setting(name: str, *contests: dict[str, object]) -> SettingReport:
    return SettingReport(name, {"select_or_project": pl.DataFrame(contests)} if contests else {})


# An interval without 0 does not tell them apart.
MORE: dict[str, object] = {}
FEWER, EQUAL = {"difference": -0.1}, {"p_holm": 0.3}
NEAR = {"criterion": "similarity", "similarity_low": 0.01, "similarity_high": 0.02}
FAR = {"criterion": "similarity"}
EVEN = {"criterion": "similarity", "similarity_low": -0.01, "similarity_high": 0.01}

SELECT = "Select: whole layers are more accurate than projections of the same size"
PROJECT = "Project: projections are more accurate than whole layers of the same size"
OPEN = "Undecided: selected layers and projections do not differ significantly in accuracy."


@pytest.mark.parametrize(
    ("contests", "verdict"),
    [
        ([MORE], f"{SELECT}."),
        ([FEWER], f"{PROJECT}."),
        ([MORE, EQUAL], f"{SELECT} in 1 of 2 comparisons, less accurate in none."),
        ([FEWER, FEWER], f"{PROJECT} in 2 of 2 comparisons, less accurate in none."),
        (
            [MORE, FEWER, EQUAL],
            "It depends: selected layers are more accurate in 1 of 3 comparisons, less accurate in 1.",
        ),
        ([EQUAL], OPEN),
        ([EQUAL, FAR], f"{OPEN} Projections are closer to the full gradient."),
        (
            [NEAR, NEAR, FAR],
            "Projections are closer to the full gradient in 1 of 3 comparisons, layers selected by similarity in 2.",
        ),
        ([NEAR, NEAR, EVEN], "Layers selected by similarity are closer to the full gradient in 2 of 3."),
    ],
)
def test_verdict(contests, verdict: str) -> None:
    answer = answer_of([setting("paraphrased", *(contest(**changes) for changes in contests))])
    assert answer is not None
    assert answer.verdict == verdict


def test_all_settings_count_and_each_has_its_numbers() -> None:
    larger = contest(dimension=58_841_600, selected_accuracy=0.4)
    answer = answer_of(
        [setting("a", larger, contest(), contest(**FAR)), setting("b", contest(**EQUAL, layers=1)), setting("c")]
    )
    assert answer is not None
    assert answer.verdict == (
        "Select for a queries; for b queries the difference is not significant. Projections are closer to the full "
        "gradient."
    )
    assert list(answer.sentences) == ["a", "b"]
    found, near = (sentence.replace("\u00a0", " ") for sentence in answer.sentences["a"])
    assert found == (
        "Layers with at most 11.8 M parameters, selected on other queries, reach 35.6 % accuracy (on all queries: "
        "2 layers with 8.39 M parameters); the gradient projected to 11.8 M dimensions (gaussian) reaches 22.8 %. "
        "The difference, selected minus projected, is +12.8 points (95 % interval +9.7 to +15.8; p = 10⁻¹⁵ "
        "after Holm’s correction)."
    )
    assert near == (
        "Similarity to the full gradient: 0.900 for layers selected by similarity, 0.990 for the projection; the "
        "difference, selected minus projected, is −0.090 (−0.100 to −0.080)."
    )
    other = answer.sentences["b"][0].replace("\u00a0", " ")
    assert "(on all queries: one layer with 8.39 M parameters)" in other
    assert other.endswith("p = 0.3 after Holm’s correction). The difference is not significant.")


def test_where_projections_lead_differences_are_theirs() -> None:
    answer = answer_of([setting("a", contest(difference=-0.1, low=-0.2, high=-0.05), contest(**FAR))])
    assert answer is not None
    found, near = answer.sentences["a"]
    assert "The difference, projected minus selected, is +10.0 points (95\u00a0% interval +5.0 to +20.0;" in found
    assert near.endswith("the difference, projected minus selected, is +0.090 (+0.080 to +0.100).")


@pytest.mark.parametrize(
    ("contests", "verdict"),
    [
        ({"a_b": [MORE], "c": [MORE]}, f"{SELECT} in 2 of 2 comparisons, less accurate in none."),
        ({"a": [EQUAL], "b": [EQUAL]}, OPEN),
        ({"a": [EQUAL], "b_c": [MORE]}, "Select for b-c queries; for a queries the difference is not significant."),
        (
            {"a": [FEWER], "b": [MORE, FEWER], "c": [EQUAL], "d": [FEWER, EQUAL]},
            "Project for a and d queries; for b queries it depends on the projection; for c queries the difference is "
            "not significant.",
        ),
        ({"a": [MORE], "b": []}, "Select for a queries."),
    ],
)
def test_settings_are_named_where_they_do_not_agree(contests, verdict: str) -> None:
    answer = answer_of(
        [setting(name, *(contest(**changes) for changes in several)) for name, several in contests.items()]
    )
    assert answer is not None
    assert answer.verdict == verdict


def test_without_projections_there_is_no_answer() -> None:
    empty = pl.DataFrame([contest()]).clear()
    assert answer_of([setting("a"), SettingReport("b", {"select_or_project": empty})]) is None
