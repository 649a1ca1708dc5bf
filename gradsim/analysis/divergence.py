"""Queries that the best layer and the full gradient score differently, and their similarities in every layer."""

from collections.abc import Sequence

import numpy as np
import polars as pl
from numpy.typing import NDArray

from gradsim.analysis.evaluation import TOLERANCE, evaluate_layers
from gradsim.analysis.layer_dots import LayerDots, cosine
from gradsim.analysis.schema import Column, Schema
from gradsim.errors import TableError

# Default number of queries to show layer by layer.
MOST_DIVERGENT = 3

DIVERGENCE: Schema = {
    "query_id": Column(pl.String, "the query"),
    "layer": Column(pl.String, "the most accurate layer, the first in model order if tied"),
    "cosine": Column(
        pl.Float64,
        "cosine between the layer's and the full gradient's similarities of the query's candidates; 0 if all "
        "similarities of either are 0",
    ),
    "rank": Column(pl.Int32, "rank of the query, 0 for the most divergent one"),
}

SIMILARITY_OVER_LAYERS: Schema = {
    "query_id": Column(pl.String, "the query"),
    "original_id": Column(pl.String, "the candidate that the query is compared with"),
    "rank": Column(pl.Int32, "rank of the candidate in the query's list, from 0"),
    "layer": Column(pl.String, "parameter tensor, in model order"),
    "similarity": Column(pl.Float64, "cosine similarity of the two gradients in this layer alone"),
}


def divergence(layer_dots: LayerDots) -> pl.DataFrame:
    """Rank all queries by how differently the most accurate layer and the full gradient score their candidates.

    The most divergent query comes first.
    """
    evaluation = evaluate_layers(layer_dots)
    accuracy = evaluation.accuracy
    best = int(np.flatnonzero(accuracy >= accuracy.max() - TOLERANCE)[0])
    cosines = cosine(evaluation.with_full[:, best], evaluation.squares[:, best], evaluation.full_squares[:, 0])
    # Summation order can change the last digits. Rounding makes such queries tie; their positions break the tie.
    order = np.argsort(cosines.round(12), kind="stable")
    return pl.DataFrame(
        {
            "query_id": layer_dots.lists.query_ids.gather(order),
            "layer": layer_dots.layers.gather(np.full(len(order), best)),
            "cosine": cosines[order],
            "rank": np.arange(len(order), dtype=np.int32),
        }
    )


def similarity_over_layers(layer_dots: LayerDots, query_ids: Sequence[str]) -> pl.DataFrame:
    """Return the similarity of some queries to each of their candidates, in every layer alone.

    Args:
        layer_dots: dot products of all queries.
        query_ids: ids of the queries, in output order.

    Raises:
        TableError: a query is unknown or named twice.
    """
    lists = layer_dots.lists
    queries = _positions_of(query_ids, lists.query_ids)
    pair = lists.pairs_of(queries)
    similarities = cosine(
        layer_dots.dots[pair],
        layer_dots.query_self_dots[lists.query[pair]],
        layer_dots.original_self_dots[layer_dots.original[pair]],
    )
    n_layers = len(layer_dots.layers)
    return layer_dots.pairs.select("query_id", "original_id", pl.col("rank").cast(pl.Int32))[
        np.repeat(pair, n_layers)
    ].with_columns(
        layer=layer_dots.layers.gather(np.tile(np.arange(n_layers), len(pair))),
        similarity=pl.Series(similarities.ravel()),
    )


def _positions_of(query_ids: Sequence[str], known: pl.Series) -> NDArray[np.int64]:
    named = pl.Series(query_ids, dtype=pl.String)
    for name in named.filter(named.is_duplicated())[:1]:
        raise TableError(f"query {name!r} is named twice")
    place = {name: at for at, name in enumerate(known)}
    for name in named:
        if name not in place:
            raise TableError(f"query {name!r} is not in dot_products")
    return np.array([place[name] for name in named], dtype=np.int64)
