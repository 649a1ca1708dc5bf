"""What is found in real samples: nothing in honest paraphrases, answers that stand in the place of prompts.

The numbers are what was measured; one that changes is to be looked at.
"""

import re
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from gradsim.queries.quality import fault_table
from gradsim.queries.without_model import drop_words

pytestmark = pytest.mark.slow

# Translations whose seventh word is a text in Chinese, which has no blanks: without it nothing is left to translate.
ROBBED_OF_THEIR_TEXT = {"lima_802", "lima_831"}
# Prompts that were carried out in the original study: two translations and a sentence to be simplified.
CARRIED_OUT = {"lima_802", "lima_815", "lima_849"}


@pytest.fixture(scope="module")
def lima(golden: Path) -> pl.DataFrame:
    return pl.read_parquet(golden / "lima" / "original.parquet").with_columns(pl.col("id").cast(pl.String))


def changed(samples: pl.DataFrame, change: Callable[[str, str], tuple[str, str]]) -> pl.DataFrame:
    """Samples with another prompt and answer, made of both."""
    rows = []
    for identifier, (prompt, answer) in samples.select("id", "messages").iter_rows():
        contents = change(prompt["content"], answer["content"])
        rows.append(
            (
                identifier,
                [{"role": role, "content": text} for role, text in zip(("user", "assistant"), contents, strict=True)],
            )
        )
    return pl.DataFrame(rows, schema=samples.select("id", "messages").schema, orient="row")


def executed(samples: pl.DataFrame, change: Callable[[str], str]) -> set[str]:
    """The samples whose prompt is taken for carried out where a changed answer stands in its place."""
    queries = changed(samples, lambda prompt, answer: (change(answer), answer))
    return set(fault_table(samples, queries, only={"user": ["executed"]})["id"])


def first_sentences(text: str) -> str:
    return " ".join(re.split(r"(?<=[.!?。])\s+", text.strip())[:2])


@pytest.mark.parametrize("backwards", [False, True])
def test_hand_written_paraphrases_have_no_fault(project: Path, backwards: bool) -> None:
    folder = project / "data" / "sample"
    originals, paraphrases = (pl.read_ndjson(folder / f"{name}.jsonl") for name in ("originals", "paraphrases"))
    if backwards:
        originals, paraphrases = paraphrases, originals
    assert fault_table(originals, paraphrases).rows() == []


def test_word_dropout_has_no_fault_but_that_short_texts_stay_as_they_are(lima: pl.DataFrame) -> None:
    queries = changed(lima, lambda prompt, answer: (drop_words(prompt, 7), drop_words(answer, 7)))
    faults = fault_table(lima, queries)
    assert dict(faults.group_by("fault").len().iter_rows()) == {"unchanged": 140, "executed": 2, "language": 2}
    assert set(faults.filter(pl.col("fault") != "unchanged")["id"]) == ROBBED_OF_THEIR_TEXT


def test_answers_in_the_place_of_prompts_are_found(lima: pl.DataFrame) -> None:
    assert len(executed(lima, lambda answer: drop_words(answer, 7))) == 986
    assert len(executed(lima, lambda answer: drop_words(first_sentences(answer), 7))) == 977


def test_what_was_carried_out_in_the_original_study_is_found(lima: pl.DataFrame) -> None:
    few = lima.filter(pl.col("id").is_in(CARRIED_OUT))
    assert executed(few, lambda answer: drop_words(answer, 4)) == CARRIED_OUT
