"""What each layer adds to the similarity of whole gradients."""

import polars as pl

from gradsim.analysis.schema import Column, Schema
from gradsim.errors import TableError

LAYER_CONTRIBUTIONS: Schema = {
    "query_id": Column(pl.String, "the query"),
    "original_id": Column(pl.String, "the candidate that the query is compared with"),
    "layer": Column(pl.String, "parameter tensor, in model order"),
    "contribution": Column(
        pl.Float64, "the layer's dot divided by the norms of both whole gradients; the similarity is the layers' sum"
    ),
}


def layer_contributions(
    dot_products: pl.DataFrame, query_self: pl.DataFrame, original_self: pl.DataFrame
) -> pl.DataFrame:
    """Return what each layer adds to the cosine similarity of the whole gradients of every pair.

    A pair's contributions sum to its similarity. They are 0 if one of its gradients is zero.

    Args:
        dot_products: Dots of pairs; rows keep their order.
        query_self: Self dots of their queries, each in every layer once.
        original_self: Self dots of their originals, each in every layer once.

    Raises:
        TableError: A sample of a pair has no self dots.
    """
    sides = ((query_self, "query_id", "query_norm"), (original_self, "original_id", "original_norm"))
    rows = dot_products
    for selves, side, norm in sides:
        norms = selves.group_by(side).agg(pl.col("self_dot").sum().sqrt().alias(norm))
        rows = rows.join(norms, on=side, how="left", maintain_order="left")
        for unknown in rows.filter(pl.col(norm).is_null())[side][:1]:
            table = side.replace("_id", "_self")
            raise TableError(f"{table} has no row for {unknown!r}, which dot_products compares: combine both again")
    # Two divisions: the product of the norms could underflow.
    contribution = pl.col("dot") / pl.col("query_norm") / pl.col("original_norm")
    defined = (pl.col("query_norm") > 0) & (pl.col("original_norm") > 0)
    return rows.with_columns(contribution=pl.when(defined).then(contribution).otherwise(0.0)).select(
        list(LAYER_CONTRIBUTIONS)
    )
