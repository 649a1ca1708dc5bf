"""Candidates: the originals that each query is compared with, ranked by BM25 over prompts, answers or both."""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray
from rank_bm25 import BM25Okapi

from gradsim.dataset.turns import kind_of, last_turn
from gradsim.errors import SampleError
from gradsim.study.datasets import MASKED_TOKENS, TOKENS, SearchedPart

Positions = NDArray[np.int64]

CANDIDATES_SCHEMA = pl.Schema(
    {
        "query_id": pl.String(),
        "original_id": pl.String(),
        "rank": pl.Int32(),
        "score": pl.Float64(),
        "forced": pl.Boolean(),
    }
)


def bm25_candidates(
    originals: pl.DataFrame,
    queries: pl.DataFrame,
    *,
    top_k: int | Literal["all"] = 5,
    part: SearchedPart = "prompt",
) -> pl.DataFrame:
    """Return the `top_k` originals with the highest BM25 scores for each query, including its true source.

    The corpus is the last user message of each original, its last answer or both, split at whitespace. Of token ids,
    those without a loss count as the prompt, and the others as the answer. A sample without the part, such as a text,
    is compared as a whole. Ties are broken in favour of the earlier original. A true source outside the first `top_k`
    replaces the last candidate and is marked `forced`.

    Args:
        originals: Samples, all of them possible candidates.
        queries: Samples with the id of their true source.
        top_k: Number of candidates per query, at most the number of originals; "all" selects every original.
        part: Part of the samples that is compared.

    Returns:
        Frame in `CANDIDATES_SCHEMA`, ordered by query, then rank.

    Raises:
        SampleError: This part of the originals is empty, a sample has no user message, or the true source of a
            query is missing.
    """
    original_ids: list[str] = originals["id"].to_list()
    position = {identifier: index for index, identifier in enumerate(original_ids)}
    for query_id in queries["id"]:
        if query_id not in position:
            raise SampleError(f"query {query_id!r} has no original; remove it or add the original of that id")
    if queries.is_empty():
        return CANDIDATES_SCHEMA.to_frame()

    score = _scorer(_words(originals, part))
    count = len(original_ids) if top_k == "all" else min(top_k, len(original_ids))
    chosen = np.empty((queries.height, count), dtype=np.int64)
    scores = np.empty((queries.height, count))
    forced = np.zeros((queries.height, count), dtype=bool)
    for row, (query_id, words) in enumerate(zip(queries["id"], _words(queries, part), strict=True)):
        query_scores = score(words)
        order = np.argsort(-query_scores, kind="stable")[:count]
        if position[query_id] not in order:
            order[-1] = position[query_id]
            forced[row, -1] = True
        chosen[row] = order
        scores[row] = query_scores[order]

    return pl.DataFrame(
        {
            "query_id": queries["id"].gather(np.repeat(np.arange(queries.height), count)),
            "original_id": originals["id"].gather(chosen.ravel()),
            "rank": np.tile(np.arange(count, dtype=np.int32), queries.height),
            "score": scores.ravel(),
            "forced": forced.ravel(),
        },
        schema=CANDIDATES_SCHEMA,
    )


def _words(samples: pl.DataFrame, part: SearchedPart) -> list[list[str]]:
    """Return the whitespace-separated words of a part of each sample; token ids are words, too."""
    found: list[list[str]] = []
    for identifier, messages in samples.select("id", "messages").iter_rows():
        if kind_of(messages) == "conversations":
            turn = last_turn(messages)
            if "user" not in turn:
                raise SampleError(f"sample {identifier!r} has no user message; add one or remove it")
            searched = [messages[turn[role]] for role in _ROLES[part] if role in turn]
        else:
            searched = [message for message in messages if message["role"] in _ROLES[part]] or messages
        found.append([word for message in searched for word in message["content"].split()])
    return found


_ROLES: Mapping[SearchedPart, tuple[str, ...]] = MappingProxyType(
    {
        "prompt": ("user", MASKED_TOKENS),
        "answer": ("assistant", TOKENS),
        "both": ("user", "assistant", MASKED_TOKENS, TOKENS),
    }
)


def _scorer(corpus: Sequence[list[str]]) -> Callable[[list[str]], NDArray[np.float64]]:
    """Return a function that computes the BM25 scores of a query against every document of the corpus.

    Scores are bitwise equal to those of rank_bm25's `get_scores`. The library looks up every word in all
    documents and adds zero where it is absent; this function uses an inverted index and caches each word's
    contributions, computed with the library's own expression.

    Raises:
        SampleError: All documents are empty.
    """
    if not any(corpus):
        raise SampleError(
            "the originals contain no words where BM25 compares them; add text to them, or set another `bm25_part`"
        )
    bm25 = BM25Okapi(corpus)
    lengths = np.array(bm25.doc_len)
    occurrences = _occurrences(bm25.doc_freqs)
    contributions: dict[str, tuple[Positions, NDArray[np.float64]]] = {}

    def score(words: list[str]) -> NDArray[np.float64]:
        total = np.zeros(bm25.corpus_size)
        for word in words:
            if word not in occurrences:  # adds nothing
                continue
            if word not in contributions:
                documents, count = occurrences[word]
                length = bm25.k1 * (1 - bm25.b + bm25.b * lengths[documents] / bm25.avgdl)
                contributions[word] = documents, bm25.idf[word] * (count * (bm25.k1 + 1) / (count + length))
            documents, added = contributions[word]
            total[documents] += added
        return total

    return score


def _occurrences(frequencies: Sequence[Mapping[str, int]]) -> dict[str, tuple[Positions, Positions]]:
    """Return the inverted index: word -> ascending document positions, and the counts in these documents."""
    found: dict[str, list[tuple[int, int]]] = {}
    for document, counts in enumerate(frequencies):
        for word, count in counts.items():
            found.setdefault(word, []).append((document, count))
    arrays = {word: np.array(places, dtype=np.int64) for word, places in found.items()}
    return {word: (places[:, 0], places[:, 1]) for word, places in arrays.items()}
