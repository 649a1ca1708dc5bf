"""Null controls: the accuracy to expect without information from gradients."""

import numpy as np
import polars as pl

from gradsim.analysis.arrays import Floats
from gradsim.analysis.candidate_lists import CandidateLists
from gradsim.analysis.schema import Column, Schema, column_types, interval
from gradsim.analysis.similarity import ordered_similarity
from gradsim.analysis.statistics import wilson_interval
from gradsim.errors import TableError

SHUFFLES = 1000
SOURCES_SHUFFLED = "sources_shuffled"
BM25_RANK = "bm25_rank"
ANSWER_LENGTH = "answer_length"
CHANCE = "chance"

CONTROLS: Schema = {
    "control": Column(
        pl.String,
        "sources_shuffled: labels a random candidate as the source; bm25_rank: chooses the first candidate; "
        "answer_length: chooses the candidate with the nearest answer length; chance: chooses a random candidate",
    ),
    "accuracy": Column(pl.Float64, "share of queries found; for sources_shuffled, the mean over 1,000 shuffles"),
    **interval("Wilson interval, or of the middle 95 % of shuffles; null for chance"),
    "queries": Column(pl.Int64, "number of queries"),
    "tied": Column(pl.Int64, "number of queries with several candidates sharing the best score"),
}


def controls(
    similarity: pl.DataFrame,
    answer_lengths: pl.DataFrame | None = None,
    query_answer_lengths: pl.DataFrame | None = None,
    *,
    seed: int = 42,
) -> pl.DataFrame:
    """Compute the accuracy of the null controls; `answer_length` is left out if no lengths are given.

    Args:
        similarity: the table `gradient_similarity`.
        answer_lengths: `id` and `length` of the originals, as returned by `answer_lengths`.
        query_answer_lengths: `id` and `length` of the queries, in the same units.
        seed: seed of the shuffles.

    Raises:
        TableError: a sample has no length, or a similarity is not finite.
    """
    pairs = ordered_similarity(similarity, "gradient_similarity")
    lists = CandidateLists.from_pairs(pairs)
    scores = pairs["similarity"].to_numpy()

    rows = [_shuffled(lists, scores, seed), _scored(BM25_RANK, lists, -pairs["rank"].to_numpy().astype(np.float64))]
    if answer_lengths is not None and query_answer_lengths is not None:
        rows.append(_scored(ANSWER_LENGTH, lists, answer_length_scores(pairs, answer_lengths, query_answer_lengths)))
    rows.append((CHANCE, float(np.mean(1 / lists.lengths)), None, None, len(lists.lengths), 0))
    return pl.DataFrame(rows, schema=column_types(CONTROLS), orient="row")


def answer_length_scores(
    pairs: pl.DataFrame, answer_lengths: pl.DataFrame, query_answer_lengths: pl.DataFrame
) -> Floats:
    """Return minus the difference between the answer lengths of each pair, (n_pairs,); arguments as of `controls`.

    Raises:
        TableError: a sample has no length.
    """
    original = _lengths(pairs["original_id"], answer_lengths, "original")
    return -np.abs(_lengths(pairs["query_id"], query_answer_lengths, "query") - original)


def answer_lengths(samples: pl.DataFrame) -> pl.DataFrame:
    """Return `id` and `length` of each sample's answer, in tokens or in words.

    Args:
        samples: a table with `labels` (counts tokens not masked by -100) or else `messages` (counts words of the last
            message). Use the same kind for originals and queries.
    """
    if "labels" in samples.columns:
        length = pl.col("labels").list.eval(pl.element() != -100).list.sum()
    else:
        answer = pl.col("messages").list.last().struct.field("content")
        length = answer.str.count_matches(r"\S+")
    return samples.select("id", length=length.cast(pl.Int64))


Row = tuple[str, float, float | None, float | None, int, int]


def _shuffled(lists: CandidateLists, scores: Floats, seed: int) -> Row:
    """Return the control that moves the source label to a random candidate of the same query, many times."""
    number_of_best = lists.number_of_best(scores)
    credit = (scores == lists.best(scores)[lists.query]) / number_of_best[lists.query]
    moved = np.random.default_rng(seed).integers(lists.lengths, size=(SHUFFLES, len(lists.lengths)))
    accuracies = credit[lists.starts + moved].mean(axis=1)
    low, high = np.quantile(accuracies, [0.025, 0.975])
    return (
        SOURCES_SHUFFLED,
        float(accuracies.mean()),
        float(low),
        float(high),
        len(lists.lengths),
        int((number_of_best > 1).sum()),
    )


def _scored(control: str, lists: CandidateLists, scores: Floats) -> Row:
    credit = lists.credit(scores)
    tied = int((lists.number_of_best(scores) > 1).sum())
    low, high = wilson_interval(credit.sum(), len(credit))
    return control, float(credit.mean()), float(low), float(high), len(credit), tied


def _lengths(ids: pl.Series, lengths: pl.DataFrame, side: str) -> Floats:
    """Return the answer length of each id, (n_ids,)."""
    known = dict(lengths.select("id", "length").iter_rows())
    for name in ids:
        if known.get(name) is None:
            raise TableError(f"no answer length for {side} {name!r}: pass lengths for all samples, or for none")
    return np.array([known[name] for name in ids], dtype=np.float64)
