"""Candidate lists as arrays, and the rule that credits a query."""

from dataclasses import dataclass

import numpy as np
import polars as pl

from gradsim.analysis.arrays import Floats, Members, Positions
from gradsim.errors import TableError


@dataclass(frozen=True)
class CandidateLists:
    """Pairs grouped into one candidate list per query; lists may differ in length.

    Attributes:
        query_ids: id of each query, in order of first appearance.
        query: index of each pair's query, (n_pairs,), ascending.
        starts: index of each query's first pair, (n_queries,).
        lengths: number of candidates of each query, (n_queries,).
        source: index of each query's pair with its true source, (n_queries,).
    """

    query_ids: pl.Series
    query: Positions
    starts: Positions
    lengths: Positions
    source: Positions

    @classmethod
    def from_pairs(cls, pairs: pl.DataFrame) -> "CandidateLists":
        """Build the lists from pairs in list order, see `in_list_order`.

        Args:
            pairs: `query_id` and `original_id`, one row per pair.

        Raises:
            TableError: a query lists an original twice, or does not list its true source.
        """
        twice = pairs.filter(pairs.select("query_id", "original_id").is_duplicated())
        for row in twice.head(1).iter_rows(named=True):
            raise TableError(
                f"original {row['original_id']!r} is listed twice for query "
                f"{row['query_id']!r}: combine the partitions again"
            )
        query = pairs["query_id"].rle_id().to_numpy().astype(np.int64)
        starts = np.flatnonzero(np.diff(query, prepend=-1))
        query_ids = pairs["query_id"][starts]
        source = (pairs["query_id"] == pairs["original_id"]).arg_true().to_numpy().astype(np.int64)
        if len(source) < len(starts):
            lost = np.setdiff1d(np.arange(len(starts)), query[source])[0]
            raise TableError(
                f"the candidates of query {query_ids[int(lost)]!r} lack its true source: compute its candidates again"
            )
        return cls(query_ids, query, starts, np.diff(starts, append=len(query)), source)

    def of_queries(self, queries: Positions) -> "CandidateLists":
        """Return the lists of a subset of the queries.

        Args:
            queries: indices into `query_ids`, ascending.
        """
        lengths = self.lengths[queries]
        starts = np.cumsum(lengths) - lengths
        return CandidateLists(
            query_ids=self.query_ids.gather(queries),
            query=np.repeat(np.arange(len(queries)), lengths),
            starts=starts,
            lengths=lengths,
            source=starts + self.source[queries] - self.starts[queries],
        )

    def pairs_of(self, queries: Positions) -> Positions:
        """Return the indices of the pairs of some queries, in the order of `queries`."""
        lengths = self.lengths[queries]
        before = np.cumsum(lengths) - lengths
        return np.repeat(self.starts[queries] - before, lengths) + np.arange(lengths.sum())

    def best(self, scores: Floats) -> Floats:
        """Return each query's best score, (n_queries, ...), from scores of pairs, (n_pairs, ...)."""
        return np.maximum.reduceat(scores, self.starts, axis=0)

    def number_of_best(self, scores: Floats) -> Positions:
        """Return how many candidates share each query's best score, (n_queries, ...)."""
        is_best = scores == self.best(scores)[self.query]
        return np.add.reduceat(is_best, self.starts, axis=0, dtype=np.int64)

    def credit(self, scores: Floats) -> Floats:
        """Return each query's credit, (n_queries, ...): 1/n if its source is among the n best candidates, else 0."""
        source_is_best: Members = scores[self.source] == self.best(scores)
        return np.where(source_is_best, 1 / self.number_of_best(scores), 0.0)


def in_list_order(pairs: pl.DataFrame) -> pl.DataFrame:
    """Sort rows by query (in order of first appearance), then by rank."""
    numbered = pairs.with_row_index("row")
    return numbered.sort(pl.col("row").min().over("query_id"), "rank", "row").drop("row")
