import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rank_bm25 import BM25Okapi

from gradsim.candidates import CANDIDATES_SCHEMA, bm25_candidates
from gradsim.dataset.samples import SAMPLES_SCHEMA
from gradsim.errors import SampleError
from gradsim.study.datasets import SearchedPart


def samples(prompts: dict[str, str]) -> pl.DataFrame:
    rows = [
        (identifier, [{"role": "user", "content": prompt}, {"role": "assistant", "content": "z"}])
        for identifier, prompt in prompts.items()
    ]
    return pl.DataFrame(rows, schema=SAMPLES_SCHEMA, orient="row")


corpora = st.lists(st.lists(st.sampled_from("abcdefg"), max_size=5).map(" ".join), min_size=1, max_size=8).filter(
    any  # BM25 needs one word
)


@given(corpora, st.data(), st.integers(1, 9))
def test_candidates_are_the_librarys_best_in_stable_order(prompts: list[str], data: st.DataObject, top_k: int) -> None:
    rewritten = data.draw(
        st.lists(
            st.lists(st.sampled_from("abcdefgh"), max_size=6).map(" ".join),
            min_size=len(prompts),
            max_size=len(prompts),
        )
    )
    originals = samples({f"s{index}": prompt for index, prompt in enumerate(prompts)})
    queries = samples({f"s{index}": prompt for index, prompt in enumerate(rewritten)})
    found = bm25_candidates(originals, queries, top_k=top_k)

    bm25 = BM25Okapi([prompt.split() for prompt in prompts])
    expected = []
    for source, prompt in enumerate(rewritten):
        scores = bm25.get_scores(prompt.split())
        order = sorted(range(len(prompts)), key=lambda position: (-scores[position], position))
        chosen, forced = order[:top_k], source not in order[:top_k]
        if forced:
            chosen[-1] = source
        expected += [
            (f"s{source}", f"s{position}", rank, scores[position], forced and rank == len(chosen) - 1)
            for rank, position in enumerate(chosen)
        ]
    assert found.schema == CANDIDATES_SCHEMA
    assert found.rows() == expected


def test_source_takes_the_last_place_when_it_scores_too_low() -> None:
    originals = samples({"s0": "x y", "s1": "y", "s2": "q r", "s3": "v", "s4": "w", "s5": "t"})
    found = bm25_candidates(originals, samples({"s2": "x y"}), top_k=2)
    assert found["original_id"].to_list() == ["s0", "s2"]
    assert found["forced"].to_list() == [False, True]
    assert found["score"][1] == 0.0


def test_all_compares_with_every_original() -> None:
    originals = samples({f"s{index}": f"word{index} shared" for index in range(7)})
    found = bm25_candidates(originals, originals, top_k="all")
    assert found.height == 49
    assert not found["forced"].any()
    assert found["original_id"].head(7).to_list() == [f"s{index}" for index in range(7)]


def test_some_queries_and_none() -> None:
    originals = samples({"a": "x y", "b": "y z", "c": "z"})
    whole = bm25_candidates(originals, originals, top_k=2)
    part = bm25_candidates(originals, originals.filter(pl.col("id") == "b"), top_k=2)
    assert part.equals(whole.filter(pl.col("query_id") == "b"))
    assert bm25_candidates(originals, originals.clear(), top_k=2).schema == CANDIDATES_SCHEMA


def test_one_original() -> None:
    original = samples({"a": "x y"})
    found = bm25_candidates(original, samples({"a": "y w"}), top_k=5)
    assert found.select("query_id", "original_id", "rank", "forced").rows() == [("a", "a", 0, False)]
    assert found["score"].is_finite().all()


@pytest.mark.parametrize(
    ("originals", "queries", "message"),
    [
        (
            samples({"a": "x"}),
            samples({"b": "x"}),
            "query 'b' has no original; remove it or add the original of that id",
        ),
        (
            samples({"a": " "}),
            samples({"a": "x"}),
            "the originals contain no words where BM25 compares them; add text to them, or set another `bm25_part`",
        ),
        (
            pl.DataFrame([("a", [{"role": "assistant", "content": "x"}])], schema=SAMPLES_SCHEMA, orient="row"),
            samples({"a": "x"}),
            "sample 'a' has no user message; add one or remove it",
        ),
        (
            samples({}),
            samples({"a": "x"}),
            "query 'a' has no original; remove it or add the original of that id",
        ),
    ],
)
def test_refusal(originals: pl.DataFrame, queries: pl.DataFrame, message: str) -> None:
    with pytest.raises(SampleError) as caught:
        bm25_candidates(originals, queries)
    assert str(caught.value) == message


def test_lima_scores_are_the_librarys_to_the_bit(golden: Path) -> None:
    originals = pl.read_parquet(golden / "lima/original.parquet")
    queries = originals[::50]
    found = bm25_candidates(originals, queries, top_k="all")
    prompts = [messages[0]["content"].split() for messages in originals["messages"]]
    bm25 = BM25Okapi(prompts)
    expected = np.concatenate([np.sort(bm25.get_scores(words))[::-1] for words in prompts[::50]])
    np.testing.assert_array_equal(found["score"].to_numpy(), expected)


def test_imports_without_torch() -> None:
    modules = "gradsim.candidates, gradsim.dataset.samples, gradsim.queries"
    script = f"import sys, {modules}; sys.exit(any(name in sys.modules for name in ('torch', 'transformers')))"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


def test_samples_without_prompts() -> None:
    """The words of a text are searched, and of token ids those that come before the loss."""
    texts, tokens = (
        pl.DataFrame({"id": ["a", "b"], "messages": rows}, schema=SAMPLES_SCHEMA)
        for rows in (
            [[{"role": "text", "content": "5 6"}], [{"role": "text", "content": "7 8"}]],
            [
                [{"role": "masked tokens", "content": "5 6"}, {"role": "tokens", "content": "7"}],
                [{"role": "tokens", "content": "7 8"}],
            ],
        )
    )
    prompts = samples({"a": "5 6", "b": "7 8"})
    for rows in (texts, tokens):
        assert bm25_candidates(rows, rows).equals(bm25_candidates(prompts, prompts))


@pytest.mark.parametrize(
    ("part", "words"), [("prompt", ("5 6", "7")), ("answer", ("7 5", "8")), ("both", ("5 6 7 5", "7 8"))]
)
def test_parts_of_samples(part: SearchedPart, words: tuple[str, str]) -> None:
    """Earlier turns are not compared; token ids without a loss are the prompt."""
    earlier = [{"role": "user", "content": "8"}, {"role": "assistant", "content": "9"}]
    chats, tokens = (
        pl.DataFrame(
            {
                "id": ["a", "b"],
                "messages": [
                    [*before, {"role": prompt, "content": "5 6"}, {"role": answer, "content": "7 5"}],
                    [*before, {"role": prompt, "content": "7"}, {"role": answer, "content": "8"}],
                ],
            },
            schema=SAMPLES_SCHEMA,
        )
        for before, prompt, answer in ((earlier, "user", "assistant"), ([], "masked tokens", "tokens"))
    )
    prompts = samples(dict(zip("ab", words, strict=True)))
    for rows in (chats, tokens):
        assert bm25_candidates(rows, rows, part=part).equals(bm25_candidates(prompts, prompts))
