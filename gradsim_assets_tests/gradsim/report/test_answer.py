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


MORE, FEWER, EQUAL = {}, {"difference": -0.1}, {"p_holm": 0.3}
NEAR = {"criterion": "similarity", "similarity_low": 0.01, "similarity_high": 0.02}
FAR = {"criterion": "similarity"}
EVEN = {"criterion": "similarity", "similarity_low": -0.01, "similarity_high": 0.01}

SELECT = "Select: whole layers find more sources than projections of the same size"
PROJECT = "Project: projections find more sources than whole layers of the same size"
EITHER = "Either: whole layers and projections of the same size find equally many sources, as far as the queries tell."


@pytest.mark.parametrize(
    ("contests", "verdict"),
    [
        ([MORE], f"{SELECT}."),
        ([FEWER], f"{PROJECT}."),
        ([MORE, EQUAL], f"{SELECT} in 1 of 2 comparisons, and fewer in none."),
        ([FEWER, FEWER], f"{PROJECT} in 2 of 2 comparisons, and fewer in none."),
        ([MORE, FEWER, EQUAL], "It depends: selected layers find more sources in 1 of 3 comparisons, fewer in 1."),
        ([EQUAL], EITHER),
        ([EQUAL, FAR], f"{EITHER} Projections are nearer to the full gradient."),
        (
            [NEAR, NEAR, FAR],
            "Projections are nearer to the full gradient in 1 of 3 comparisons, layers selected for it in 2.",
        ),
        ([NEAR, NEAR, EVEN], "Layers selected for it are nearer to the full gradient in 2 of 3."),
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
    assert "in 2 of 3 comparisons, and fewer in none. Projections are nearer" in answer.verdict
    assert list(answer.sentences) == ["a", "b"]
    found, near = (sentence.replace("\u00a0", " ") for sentence in answer.sentences["a"])
    assert found == (
        "2 layers of 8.39 M parameters in all, selected on other queries, find 35.6 % of the sources; projected to "
        "11.8 M dimensions (gaussian), the gradient finds 22.8 %. The difference is +12.8 points (95 % interval +9.7 "
        "to +15.8; p = 10⁻¹⁵ after Holm’s correction)."
    )
    assert near == (
        "Similarity to the full gradient: 0.900 by layers selected for it, 0.990 by the projection; a difference of "
        "−0.090 (−0.100 to −0.080)."
    )
    assert answer.sentences["b"][0].startswith("One layer of")


def test_without_projections_there_is_no_answer() -> None:
    empty = pl.DataFrame([contest()]).clear()
    assert answer_of([setting("a"), SettingReport("b", {"select_or_project": empty})]) is None
