"""Candidates: the originals that a query is compared with, chosen by BM25 over the prompts."""

from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray
from rank_bm25 import BM25Okapi

from gradsim.errors import SampleError

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


def bm25_candidates(originals: pl.DataFrame, queries: pl.DataFrame, *, top_k: int | Literal["all"] = 5) -> pl.DataFrame:
    """The `top_k` originals that BM25 scores highest for each query, its true source among them.

    The corpus is the first user message of each original, split at white space; ties go to the earlier original. A
    true source that is not among the first `top_k` takes the last place and is marked `forced`.

    Args:
        originals: samples; all of them are candidates.
        queries: samples that bear the id of their true source.
        top_k: candidates of each query; fewer originals, or "all": every original.

    Returns:
        A frame of `CANDIDATES_SCHEMA`, ordered by query, then rank.

    Raises:
        SampleError: no original has a word in its prompt, a sample without a user message, or a query whose true
            source is missing.
    """
    original_ids: list[str] = originals["id"].to_list()
    position = {identifier: index for index, identifier in enumerate(original_ids)}
    for query_id in queries["id"]:
        if query_id not in position:
            raise SampleError(f"query {query_id!r} has no original; remove it or add the original of that id")
    if queries.is_empty():
        return CANDIDATES_SCHEMA.to_frame()

    score = _scorer(_words_of_prompts(originals))
    count = len(original_ids) if top_k == "all" else min(top_k, len(original_ids))
    chosen = np.empty((queries.height, count), dtype=np.int64)
    scores = np.empty((queries.height, count))
    forced = np.zeros((queries.height, count), dtype=bool)
    for row, (query_id, words) in enumerate(zip(queries["id"], _words_of_prompts(queries), strict=True)):
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


def _words_of_prompts(samples: pl.DataFrame) -> list[list[str]]:
    """The white-space separated words of each sample's first user message."""
    prompts: list[list[str]] = []
    for identifier, messages in samples.select("id", "messages").iter_rows():
        prompt = next((message["content"] for message in messages if message["role"] == "user"), None)
        if prompt is None:
            raise SampleError(f"sample {identifier!r} has no user message; add one or remove it")
        prompts.append(prompt.split())
    return prompts


def _scorer(corpus: Sequence[list[str]]) -> Callable[[list[str]], NDArray[np.float64]]:
    """BM25 of a query's words against every document of the corpus, to the bit as `get_scores` of rank_bm25.

    The library looks every word up in all documents, and adds zero to those without it. Here a word's documents are
    known, and what it adds to them is computed once, by the library's own expression.
    """
    if not any(corpus):
        raise SampleError("the originals' prompts hold no words, so BM25 has nothing to rank; give them text")
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
    """Word -> documents that hold it, ascending, and how often each does."""
    found: dict[str, list[tuple[int, int]]] = {}
    for document, counts in enumerate(frequencies):
        for word, count in counts.items():
            found.setdefault(word, []).append((document, count))
    arrays = {word: np.array(places, dtype=np.int64) for word, places in found.items()}
    return {word: (places[:, 0], places[:, 1]) for word, places in arrays.items()}
