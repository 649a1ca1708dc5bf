"""Cosine similarity of whole gradients, and validation of similarity tables."""

import polars as pl

from gradsim.analysis.candidate_lists import in_list_order
from gradsim.analysis.layer_dots import LayerDots
from gradsim.analysis.schema import Column, Schema
from gradsim.errors import TableError

GRADIENT_SIMILARITY: Schema = {
    "query_id": Column(pl.String, "the query"),
    "original_id": Column(pl.String, "the candidate that the query is compared with"),
    "rank": Column(pl.Int32, "rank of the candidate in the query's list, from 0"),
    "similarity": Column(pl.Float64, "cosine similarity of the two whole gradients"),
}

FULL_GRADIENT = "full_gradient"


def gradient_similarity(
    dot_products: pl.DataFrame, query_self: pl.DataFrame, original_self: pl.DataFrame
) -> pl.DataFrame:
    """Return the cosine similarity of the whole gradients of every pair.

    Rows are sorted by query (in order of first appearance), then by rank.

    Raises:
        TableError: the tables are invalid, see `LayerDots.from_tables`.
    """
    layer_dots = LayerDots.from_tables(dot_products, query_self, original_self)
    return layer_dots.pairs.with_columns(pl.col("rank").cast(pl.Int32), similarity=layer_dots.similarity())


def ordered_similarity(similarity: pl.DataFrame, table: str) -> pl.DataFrame:
    """Return `query_id`, `original_id`, `rank` and `similarity` in list order.

    Args:
        similarity: similarities of pairs, rows in any order.
        table: name of the table, for error messages.

    Raises:
        TableError: there are no rows, or a similarity is missing or not finite.
    """
    if similarity.is_empty():
        raise TableError(f"{table} has no rows: compute at least one partition")
    bad = similarity.filter(~pl.col("similarity").is_finite().fill_null(False))
    for row in bad.head(1).iter_rows(named=True):
        raise TableError(
            f"{table} has similarity {row['similarity']} for query {row['query_id']!r} and original "
            f"{row['original_id']!r}: compute that partition again"
        )
    return in_list_order(similarity.select(list(GRADIENT_SIMILARITY)))
