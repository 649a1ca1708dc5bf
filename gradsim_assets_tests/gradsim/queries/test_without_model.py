import re
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradsim.dataset.samples import SAMPLES_SCHEMA
from gradsim.errors import SampleError
from gradsim.queries import QueryContext, make_queries
from gradsim.queries.without_model import drop_words
from gradsim.study.settings import Quality, QueryFile, QueryMethod, WordDropout

texts = st.text(st.sampled_from("ab.é \t\n\r\u00a0\u2028"), max_size=60)


def samples(rows: dict[str, tuple[str, str]]) -> pl.DataFrame:
    messages = [
        (identifier, [{"role": "user", "content": prompt}, {"role": "assistant", "content": answer}])
        for identifier, (prompt, answer) in rows.items()
    ]
    return pl.DataFrame(messages, schema=SAMPLES_SCHEMA, orient="row")


class TestDropWords:
    @given(texts, st.integers(2, 8))
    def test_drops_every_nth_word_and_no_other(self, text: str, every: int) -> None:
        words = text.split()
        kept = [word for number, word in enumerate(words, start=1) if number % every]
        assert drop_words(text, every).split() == kept

    @given(texts, st.integers(2, 8))
    def test_line_breaks_survive_and_text_is_never_emptied(self, text: str, every: int) -> None:
        shorter = drop_words(text, every)
        assert re.findall(r"[\r\n]", shorter) == re.findall(r"[\r\n]", text)
        assert bool(shorter.strip()) == bool(text.strip())

    @given(texts, st.integers(2, 8))
    def test_short_text_is_unchanged(self, text: str, every: int) -> None:
        if len(text.split()) < every:
            assert drop_words(text, every) == text

    @given(texts, st.integers(2, 8))
    def test_kept_words_keep_their_indentation(self, text: str, every: int) -> None:
        for before, after in zip(re.split(r"[\r\n]", text), re.split(r"[\r\n]", drop_words(text, every)), strict=True):
            if after.strip():
                indentations = [line[: len(line) - len(line.lstrip())] for line in (before, after)]
                assert indentations[0] == indentations[1]

    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("one two three four", "one three"),
            ("def f(x):\n    return x\n", "def\n    return\n"),
            ("a\n    b  c\n", "a\n    c\n"),
            ("- a\n- b", "-\n-"),
            ("a  b  c", "a  c"),
        ],
    )
    def test_blanks_beside_a_dropped_word_go_with_it(self, text: str, expected: str) -> None:
        assert drop_words(text, 2) == expected


def context(originals: pl.DataFrame, *, trial: bool = False) -> QueryContext:
    return QueryContext("study/setting", 42, originals["id"].to_list(), Path("nowhere"), trial=trial)


def made(
    method: QueryMethod, originals: pl.DataFrame, wanted: pl.DataFrame | None = None, *, trial: bool = False
) -> pl.DataFrame:
    queries = make_queries(method, originals if wanted is None else wanted, context(originals, trial=trial))
    assert queries.excluded == {}
    assert queries.frame["seeds"].to_list() == [[None, None]] * queries.frame.height
    return queries.frame.select("id", "messages")


class TestWordDropout:
    originals = samples({"a": ("p q r", "s"), "b": ("t", "u v w x"), "c": ("y", "z")})

    def test_prompt_and_answer_in_their_order(self) -> None:
        found = made(WordDropout(every=2), self.originals)
        assert found.equals(samples({"a": ("p r", "s"), "b": ("t", "u w"), "c": ("y", "z")}))

    def test_every_word_cannot_be_dropped(self) -> None:
        with pytest.raises(ValueError, match="greater than or equal to 2"):
            WordDropout(every=1)

    def test_what_the_study_excludes_is_named(self) -> None:
        method = WordDropout(every=2, quality=Quality(unchanged="exclude"))
        found = make_queries(method, self.originals, context(self.originals))
        assert found.frame["id"].to_list() == []
        assert found.excluded == {
            "a": "its answer: the same as before",
            "b": "its prompt: the same as before",
            "c": "its prompt: the same as before; its answer: the same as before",
        }

    def test_nobody_can_be_asked_again(self) -> None:
        with pytest.raises(ValueError, match="retry is for a model that rewrites; choose keep or exclude"):
            WordDropout(quality=Quality(refused="retry"))


class TestQueryFile:
    originals = samples({"a": ("p", "q"), "b": ("r", "s")})

    def test_takes_the_originals_order(self, tmp_path: Path) -> None:
        path = tmp_path / "queries.parquet"
        samples({"b": ("R", "S"), "a": ("P", "Q")}).write_parquet(path)
        assert made(QueryFile(path=path), self.originals).equals(samples({"a": ("P", "Q"), "b": ("R", "S")}))
        assert made(QueryFile(path=path), self.originals, self.originals[1:]).equals(samples({"b": ("R", "S")}))

    def test_trial_of_few_originals_leaves_the_other_queries_out(self, tmp_path: Path) -> None:
        path = tmp_path / "queries.parquet"
        samples({"b": ("R", "S"), "a": ("P", "Q")}).write_parquet(path)
        assert made(QueryFile(path=path), self.originals.head(1), trial=True).equals(samples({"a": ("P", "Q")}))

    @pytest.mark.parametrize(
        ("rows", "message"),
        [
            (
                {"b": ("R", "S"), "c": ("P", "Q"), "a": ("P", "Q")},
                "query 'c' has no original; remove it or give it the id of the original it was made from",
            ),
            ({"b": ("R", "S")}, "original 'a' has no query; add one of that id"),
            ({"b": ("R", ""), "a": ("P", "Q")}, "sample 'b' has an empty answer; fix or remove it"),
            ({}, "holds no samples; give at least one"),
        ],
    )
    def test_refusal(self, tmp_path: Path, rows: dict[str, tuple[str, str]], message: str) -> None:
        path = tmp_path / "queries.jsonl"
        samples(rows).write_ndjson(path)
        with pytest.raises(SampleError) as caught:
            make_queries(QueryFile(path=path), self.originals[:1], context(self.originals))
        assert str(caught.value) == f"{path}: {message}"
