"""Comparison of projected similarities with theory, from exact dot products of every layer."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import polars as pl

from gradsim.analysis.arrays import Floats, Positions
from gradsim.analysis.candidate_lists import CandidateLists
from gradsim.analysis.evaluation import Criterion, Evaluation
from gradsim.analysis.layer_dots import LayerDots, cosine
from gradsim.analysis.schema import Column, Schema, column_types, interval
from gradsim.analysis.similarity import ordered_similarity
from gradsim.analysis.statistics import Bootstrap
from gradsim.errors import TableError

UNBIASED = "unbiased"
AS_PUBLISHED = "as_published"

# Kinds with a variance that follows from dot products alone.
_DENSE = frozenset({"rademacher", "sjlt", "traker"})
_HADAMARD = "srht"

PROJECTION_ERRORS: Schema = {
    "projection": Column(pl.String, "name of the projection"),
    "dimension": Column(pl.Int64, "dimension of the projected gradient, summed over layers"),
    "query_id": Column(pl.String, "the query"),
    "original_id": Column(pl.String, "the candidate that the query is compared with"),
    "full": Column(pl.Float64, "cosine similarity of the two whole gradients"),
    "expected": Column(
        pl.Float64, "cosine that the projection estimates, with layers weighted according to its scaling"
    ),
    "observed": Column(pl.Float64, "cosine similarity of the two projected gradients"),
    "predicted_sd": Column(
        pl.Float64, "theoretical standard deviation of observed; null for kinds that need more than dot products"
    ),
    "rightly_scaled": Column(
        pl.Float64, "cosine under a randomly drawn, correctly scaled dense projection of the same dimension"
    ),
}

PROJECTION_AUDIT: Schema = {
    "projection": Column(pl.String, "name of the projection"),
    "dimension": Column(pl.Int64, "dimension of the projected gradient, summed over layers"),
    "pairs": Column(pl.Int64, "number of pairs"),
    "mean_error": Column(pl.Float64, "mean of the projected cosine minus the cosine that it estimates"),
    "error_sd": Column(pl.Float64, "root mean square of that error"),
    "predicted_sd": Column(
        pl.Float64, "value that theory predicts for error_sd; null for kinds that need more than dot products"
    ),
    "sd_ratio": Column(pl.Float64, "error_sd divided by predicted_sd; near 1 if the projection behaves as predicted"),
    "agreement": Column(
        pl.Float64, "cosine between the projection's and the full gradient's similarities of all pairs"
    ),
    **interval("interval, from a bootstrap over queries with the projections fixed", "agreement_low", "agreement_high"),
    "agreement_without_noise": Column(pl.Float64, "agreement of the cosines that the projection estimates"),
    "agreement_rightly_scaled": Column(pl.Float64, "agreement of a randomly drawn, correctly scaled dense projection"),
}


@dataclass(frozen=True)
class Gram:
    """Dot products and self dot products of pairs, (pairs, layers) each, or of grids of pairs that broadcast."""

    dots: Floats
    query: Floats
    original: Floats

    @classmethod
    def of(cls, dots: LayerDots) -> "Gram":
        """Collect the dot products of all pairs of a study."""
        return cls(dots.dots, dots.query_self_dots[dots.lists.query], dots.original_self_dots[dots.original])

    def cosine(self, weights: Floats) -> Floats:
        """Return each pair's cosine similarity with weighted layers, (pairs,).

        Args:
            weights: weight of each layer's dots, (layers,).
        """
        return cosine(self.dots @ weights, self.query @ weights, self.original @ weights)


def projection_errors(
    layer_dots: LayerDots, projected: pl.DataFrame, projections: pl.DataFrame, *, seed: int
) -> pl.DataFrame:
    """Compare every pair's projected cosine with theory.

    Returns:
        One row per projection and pair, with the columns of `PROJECTION_ERRORS`.

    Raises:
        TableError: `projections` lacks a layer, or `projected` does not have the same pairs as `layer_dots`.
    """
    gram = Gram.of(layer_dots)
    full = gram.cosine(np.ones(len(layer_dots.layers)))
    random = np.random.default_rng(seed)
    frames = [pl.DataFrame(schema=column_types(PROJECTION_ERRORS))]
    for (name, dimension), layers in _by_projection(projections, layer_dots):
        observed = observed_similarity(projected, layer_dots, name, dimension)
        k = layers["layer_dimension"].to_numpy().astype(np.float64)
        weights = k if layers["scaling"][0] == AS_PUBLISHED else np.ones_like(k)
        inverse = inverse_dimensions(layers["kind"][0], k, layers["parameters"].to_numpy())
        expected = gram.cosine(weights)
        sd = np.full(len(full), np.nan) if inverse is None else np.sqrt(cosine_variance(gram, weights, inverse))
        frames.append(
            layer_dots.pairs.select(
                pl.lit(name).alias("projection"),
                pl.lit(dimension, pl.Int64).alias("dimension"),
                pl.col("query_id", "original_id").cast(pl.String),
                pl.Series("full", full),
                pl.Series("expected", expected),
                pl.Series("observed", observed),
                pl.Series("predicted_sd", sd).fill_nan(None),
                pl.Series("rightly_scaled", cosine(*drawn_grams(gram, k, layers["parameters"].to_numpy(), random))),
            )
        )
    return pl.concat(frames)


def projection_audit(errors: pl.DataFrame, *, seed: int) -> pl.DataFrame:
    """Summarize the errors of projected similarities, one row per projection.

    Args:
        errors: result of `projection_errors`.
        seed: seed of the bootstrap.
    """
    error = pl.col("observed") - pl.col("expected")
    error_sd = error.pow(2).mean().sqrt()
    predicted_sd = pl.col("predicted_sd").pow(2).mean().sqrt()
    by_projection = errors.group_by("projection", "dimension", maintain_order=True)
    audit = by_projection.agg(
        pairs=pl.len().cast(pl.Int64),
        mean_error=error.mean(),
        error_sd=error_sd,
        predicted_sd=predicted_sd,
        sd_ratio=error_sd / predicted_sd,
    )
    agreements = [_agreements(rows, seed) for _, rows in by_projection]
    names = list(PROJECTION_AUDIT)[len(audit.columns) :]
    return audit.hstack(pl.DataFrame(agreements, schema=dict.fromkeys(names, pl.Float64)))


def cosine_variance(gram: Gram, weights: Floats, inverse_dimensions: Floats) -> Floats:
    """Return the variance of a projected cosine by the delta method, (pairs,).

    Let D, Q and O be the weighted sums over layers of d, q and o, and let c = D/√(QO). A layer's projected dots have
    var d = (q·o + d²)/k, var q = 2q²/k, var o = 2o²/k, cov(d, q) = 2qd/k, cov(d, o) = 2od/k, cov(q, o) = 2d²/k. Then:

        var c = var D/(QO) + c²/4 (var Q/Q² + var O/O²) - c (cov(D, Q)/Q + cov(D, O)/O)/√(QO) + c²/2 cov(Q, O)/(QO)

    Args:
        gram: dot products and self dot products.
        weights: weight of each layer's dots, (layers,).
        inverse_dimensions: 1/k of each layer, (layers,); 0 for layers that are kept whole.
    """
    d, q, o = gram.dots, gram.query, gram.original
    total_d, total_q, total_o = d @ weights, q @ weights, o @ weights
    per_layer = weights**2 * inverse_dimensions
    norms = total_q * total_o
    c = cosine(total_d, total_q, total_o)
    with np.errstate(divide="ignore", invalid="ignore"):
        variance = (
            (q * o + d**2) @ per_layer / norms
            + c**2 / 2 * (q**2 @ per_layer / total_q**2 + o**2 @ per_layer / total_o**2)
            - 2 * c * ((q * d) @ per_layer / total_q + (o * d) @ per_layer / total_o) / np.sqrt(norms)
            + c**2 * (d**2 @ per_layer) / norms
        )
    return np.where(norms > 0, np.maximum(variance, 0.0), 0.0)


def inverse_dimensions(kind: str, dimensions: Floats, parameters: Positions) -> Floats | None:
    """Return the variance factor of each layer, (layers,), or None for kinds that need more than dot products.

    The factor is 1/k, reduced for a Hadamard transform, and 0 for layers that are kept whole (k >= n).

    Args:
        kind: kind of the projection.
        dimensions: projected dimension k of each layer, (layers,).
        parameters: number of parameters n of each layer, (layers,).
    """
    k, n = dimensions, parameters.astype(np.float64)
    if kind in _DENSE:
        return np.where(k < n, 1 / k, 0.0)
    if kind == _HADAMARD:
        padded = 2.0 ** np.ceil(np.log2(n))
        return np.where(k < n, (padded - k) / np.maximum(padded - 1, 1) / k, 0.0)
    return None


def drawn_grams(gram: Gram, k: Floats, parameters: Positions, random: np.random.Generator) -> Floats:
    """Draw dots and self dots of correctly scaled dense projections, summed over layers, (3, pairs).

    The Gram matrix of two projected vectors has a Wishart distribution. Bartlett's decomposition draws it as L A Aᵀ Lᵀ
    / k: L is the Cholesky factor of the layer's Gram matrix, and A is lower triangular with χ_k and χ_k-1 variables on
    the diagonal and a standard normal variable below. Layers with k >= n are kept whole.

    Args:
        gram: exact dot products and self dot products.
        k: projected dimension of each layer, (layers,).
        parameters: number of parameters n of each layer, (layers,).
        random: source of random numbers.
    """
    sums = np.zeros((3, len(gram.dots)))
    for layer, (dimension, n) in enumerate(zip(k, parameters, strict=True)):
        d, q, o = gram.dots[:, layer], gram.query[:, layer], gram.original[:, layer]
        if dimension >= n:
            sums += np.stack([d, q, o])
            continue
        a = np.sqrt(q)
        b = np.divide(d, a, out=np.zeros_like(d), where=a > 0)
        c = np.sqrt(np.maximum(o - b**2, 0.0))
        first = np.sqrt(random.chisquare(dimension, len(d)))
        second = np.sqrt(random.chisquare(dimension - 1, len(d))) if dimension > 1 else 0.0
        normal = random.standard_normal(len(d))
        x, y, z = a * first, b * first + c * normal, c * second
        sums += np.stack([x * y, x**2, y**2 + z**2]) / dimension
    return sums


def _by_projection(projections: pl.DataFrame, layer_dots: LayerDots) -> Iterator[tuple[tuple[str, int], pl.DataFrame]]:
    """Yield (name, dimension) and the layers of each projection, in the order of `layer_dots.layers`.

    Raises:
        TableError: a projection lacks a layer.
    """
    order = layer_dots.layers.cast(pl.String).to_frame("layer")
    for key, rows in projections.group_by("projection", "dimension", maintain_order=True):
        by_name = rows.with_columns(pl.col("layer").cast(pl.String))
        layers = order.join(by_name, on="layer", how="left", maintain_order="left")
        for missing in layers.filter(pl.col("layer_dimension").is_null())["layer"][:1]:
            raise TableError(f"projections has no dimension for layer {missing!r}: materialize it again")
        yield (str(key[0]), int(key[1])), layers


def observed_similarity(projected: pl.DataFrame, layer_dots: LayerDots, name: str, dimension: int) -> Floats:
    """Return the stored similarities of a projection in the order of `layer_dots.pairs`, (pairs,).

    Raises:
        TableError: the projection does not have the same pairs, or a similarity is not finite.
    """
    chosen = projected.filter(pl.col("projection") == name, pl.col("dimension") == dimension)
    rows = ordered_similarity(chosen, f"projected_similarity {name}-{dimension}")
    keys = ["query_id", "original_id"]
    texts = [frame.select(pl.col(keys).cast(pl.String)) for frame in (rows, layer_dots.pairs)]
    if not texts[0].equals(texts[1]):
        raise TableError(
            f"projected_similarity {name}-{dimension} does not have the same pairs as dot_products: combine both again"
        )
    return rows["similarity"].to_numpy()


def _agreements(rows: pl.DataFrame, seed: int) -> dict[str, float]:
    """Return the agreement columns of `PROJECTION_AUDIT` for one projection."""
    similarities = rows.select("observed", "expected", "rightly_scaled").to_numpy()
    evaluation = Evaluation.of(CandidateLists.from_pairs(rows), similarities, rows["full"].to_numpy())
    low, high = evaluation.interval(Criterion.SIMILARITY, Bootstrap(len(evaluation.credit), seed=seed))
    observed, expected, rightly_scaled = evaluation.similarity
    return {
        "agreement": observed,
        "agreement_low": low[0],
        "agreement_high": high[0],
        "agreement_without_noise": expected,
        "agreement_rightly_scaled": rightly_scaled,
    }
