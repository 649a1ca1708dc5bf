"""Retrieval methods compared on the same candidates: the full gradient, each projection, and BM25."""

from dataclasses import dataclass

import numpy as np
import polars as pl

from gradsim.analysis.arrays import Floats, Members
from gradsim.analysis.candidate_lists import CandidateLists
from gradsim.analysis.similarity import FULL_GRADIENT, ordered_similarity
from gradsim.errors import TableError

BM25 = "bm25"


@dataclass(frozen=True)
class Methods:
    """Scores of all pairs by every method.

    Attributes:
        names: method names: the full gradient, each projection as `PROJECTION-DIMENSION`, BM25.
        lists: the pairs as one candidate list per query.
        scores: (n_pairs, n_methods), higher is better; similarities, or the order of rank for BM25.
        forced: whether each query's true source was added by rule, (n_queries,); null if unknown.
    """

    names: list[str]
    lists: CandidateLists
    scores: Floats
    forced: pl.Series

    @classmethod
    def from_tables(
        cls, similarity: pl.DataFrame, candidates: pl.DataFrame | None = None, projected: pl.DataFrame | None = None
    ) -> "Methods":
        """Read the tables, with rows in any order; queries keep the order of `similarity`.

        Raises:
            TableError: the tables do not have the same pairs, a similarity is not finite, or a true source is missing.
        """
        pairs = ordered_similarity(similarity, "gradient_similarity")
        lists = CandidateLists.from_pairs(pairs)
        scores = {FULL_GRADIENT: pairs["similarity"].to_numpy()}
        if projected is not None:
            for (projection, dimension), rows in projected.group_by("projection", "dimension", maintain_order=True):
                name = f"{projection}-{dimension}"
                scores[name] = _scores_of(name, rows, pairs)
        scores[BM25] = (lists.starts[lists.query] - np.arange(len(pairs))).astype(np.float64)
        return cls(
            names=list(scores),
            lists=lists,
            scores=np.stack(list(scores.values()), axis=1),
            forced=sources_forced(lists.query_ids, candidates),
        )

    def listed(self) -> Members:
        """Return whether each method lists each query's true source, (n_queries, n_methods).

        Only BM25 can miss a source: it does not list those that were forced.
        """
        listed = np.ones((len(self.forced), len(self.names)), dtype=np.bool_)
        listed[:, -1] = ~self.forced.fill_null(False).to_numpy()
        return listed

    def credit(self) -> Floats:
        """Return the credit of each query by each method, (n_queries, n_methods)."""
        return self.lists.credit(self.scores) * self.listed()

    def groups(self) -> dict[str, Members]:
        """Return masks of all queries, of ranked and of forced ones, (n_queries,) each; no empty groups.

        A query is ranked if BM25 listed its true source, and forced if the source was added by rule.
        """
        groups = {
            "all": np.ones(len(self.forced), dtype=np.bool_),
            "ranked": (~self.forced).fill_null(False).to_numpy(),
            "forced": self.forced.fill_null(False).to_numpy(),
        }
        return {name: members for name, members in groups.items() if members.any()}


def sources_forced(query_ids: pl.Series, candidates: pl.DataFrame | None) -> pl.Series:
    """Return whether each query's true source was added by rule; null if unknown.

    Args:
        query_ids: ids of the queries.
        candidates: the table `candidates`; None if unknown.

    Raises:
        TableError: `candidates` lacks a query's true source.
    """
    if candidates is None:
        return pl.Series("forced", [None] * len(query_ids), dtype=pl.Boolean)
    sources = candidates.filter(pl.col("query_id") == pl.col("original_id"))
    known = dict(sources.select("query_id", "forced").iter_rows())
    for query_id in query_ids:
        if query_id not in known:
            raise TableError(
                f"candidates has no row for query {query_id!r} and its true source: compute its candidates again"
            )
    return pl.Series("forced", [known[query_id] for query_id in query_ids], dtype=pl.Boolean)


def _scores_of(name: str, rows: pl.DataFrame, pairs: pl.DataFrame) -> Floats:
    """Return a projection's similarities in the order of `pairs`."""
    table = f"projected_similarity {name}"
    keys = pl.col("query_id", "original_id").cast(pl.String)
    stored = ordered_similarity(rows, table).select(keys, "similarity")
    found = pairs.select(keys).join(stored, on=["query_id", "original_id"], how="left", maintain_order="left")
    if len(stored) != len(pairs) or found["similarity"].has_nulls():
        raise TableError(f"{table} does not have the same pairs as gradient_similarity: combine both again")
    return found["similarity"].to_numpy()
