"""Projected similarities beside what theory expects of them, from exact dots of every layer."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from gradsim.analysis.candidate_lists import CandidateLists
from gradsim.analysis.evaluation import Criterion, Evaluation
from gradsim.analysis.layer_dots import LayerDots, cosine
from gradsim.analysis.schema import Schema, column_types
from gradsim.analysis.similarity import ordered_similarity
from gradsim.analysis.statistics import Bootstrap
from gradsim.errors import TableError

Floats = NDArray[np.float64]

UNBIASED = "unbiased"
AS_PUBLISHED = "as_published"

# Kinds of which a dot's variance follows from dots alone.
_DENSE = frozenset({"rademacher", "sjlt", "traker"})
_HADAMARD = "srht"

PROJECTION_ERRORS: Schema = {
    "projection": (pl.String, "name of the projection"),
    "dimension": (pl.Int64, "dimensions of the projected gradient, all layers together"),
    "query_id": (pl.String, "the query"),
    "original_id": (pl.String, "the candidate that it is compared with"),
    "full": (pl.Float64, "cosine of the two whole gradients"),
    "expected": (pl.Float64, "the cosine that the projection estimates: of each layer as often as its scaling says"),
    "observed": (pl.Float64, "cosine of the two projected gradients"),
    "predicted_sd": (pl.Float64, "standard deviation that theory gives; null for kinds whose needs more than dots"),
    "rightly_scaled": (pl.Float64, "a dense projection of these dimensions, rightly scaled, drawn at random"),
}

PROJECTION_AUDIT: Schema = {
    "projection": (pl.String, "name of the projection"),
    "dimension": (pl.Int64, "dimensions of the projected gradient, all layers together"),
    "pairs": (pl.Int64, "number of pairs"),
    "mean_error": (pl.Float64, "mean of projected cosine less the cosine that it estimates"),
    "error_sd": (pl.Float64, "root mean square of the same"),
    "predicted_sd": (pl.Float64, "what theory gives for it; null for kinds whose needs more than dots"),
    "sd_ratio": (pl.Float64, "error_sd over predicted_sd: near 1 if the projection does what it promises"),
    "agreement": (pl.Float64, "cosine of all projected similarities and all of the full gradient"),
    "agreement_low": (pl.Float64, "lower end of its 95 % interval, a bootstrap over queries with these projections"),
    "agreement_high": (pl.Float64, "the interval's upper end"),
    "agreement_without_noise": (pl.Float64, "the same of the cosines that the projection estimates"),
    "agreement_rightly_scaled": (pl.Float64, "the same of a dense projection, rightly scaled, drawn at random"),
}


@dataclass(frozen=True)
class Gram:
    """Dots and self dots of pairs, (pairs, layers) each."""

    dots: Floats
    query: Floats
    original: Floats

    @classmethod
    def of(cls, dots: LayerDots) -> "Gram":
        """Of all pairs of a study."""
        return cls(dots.dots, dots.query_self_dots[dots.lists.query], dots.original_self_dots[dots.original])

    def cosine(self, weights: Floats) -> Floats:
        """(pairs,) of all layers, each counted as often as its weight says."""
        return cosine(self.dots @ weights, self.query @ weights, self.original @ weights)


def projection_errors(
    layer_dots: LayerDots, projected: pl.DataFrame, projections: pl.DataFrame, *, seed: int
) -> pl.DataFrame:
    """Every pair's projected cosine beside what theory expects of it; columns as `PROJECTION_ERRORS`.

    Args:
        layer_dots: exact dots of all pairs.
        projected: the table `projected_similarity`.
        projections: the table `projections`.
        seed: for the projection that is drawn.

    Raises:
        TableError: the tables do not fit together.
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
    """How near projected similarities are to what theory expects, one row a projection.

    Args:
        errors: of `projection_errors`.
        seed: of the bootstrap.
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
    """(pairs,) variance of a projected cosine, by the delta method.

    With D, Q, O the weighted sums over layers of d, q, o, and c = D/√(QO), from the variances of a layer's projected
    dots, var d = (q·o + d²)/k, var q = 2q²/k, var o = 2o²/k, cov(d, q) = 2qd/k, cov(d, o) = 2od/k, cov(q, o) = 2d²/k:

        var c = var D/(QO) + c²/4 (var Q/Q² + var O/O²) - c (cov(D, Q)/Q + cov(D, O)/O)/√(QO) + c²/2 cov(Q, O)/(QO)

    Args:
        gram: dots and self dots.
        weights: (layers,) how often each layer counts.
        inverse_dimensions: (layers,) 1/k; zero for layers that are kept whole.
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


def inverse_dimensions(kind: str, dimensions: Floats, parameters: NDArray[np.int64]) -> Floats | None:
    """(layers,) by what variances are multiplied: 1/k, less what a Hadamard transform gains; 0 for whole layers.

    Args:
        kind: of the projection.
        dimensions: (layers,) k.
        parameters: (layers,) n.

    Returns:
        None for kinds whose variance needs more than dots.
    """
    k, n = dimensions, parameters.astype(np.float64)
    if kind in _DENSE:
        return np.where(k < n, 1 / k, 0.0)
    if kind == _HADAMARD:
        padded = 2.0 ** np.ceil(np.log2(n))
        return np.where(k < n, (padded - k) / np.maximum(padded - 1, 1) / k, 0.0)
    return None


def drawn_grams(gram: Gram, k: Floats, parameters: NDArray[np.int64], random: np.random.Generator) -> Floats:
    """(3, pairs) dots and both self dots of dense projections, rightly scaled, summed over layers.

    Gram matrices of two projected vectors are Wishart's.

    Bartlett's decomposition: with L the Cholesky factor of a layer's Gram matrix and A lower triangular, of χ_k, χ_k-1
    and a normal number, L A Aᵀ Lᵀ / k.
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
    """(name, dimension) and its layers, in the order of the dots' layers."""
    order = layer_dots.layers.cast(pl.String).to_frame("layer")
    for key, rows in projections.group_by("projection", "dimension", maintain_order=True):
        by_name = rows.with_columns(pl.col("layer").cast(pl.String))
        layers = order.join(by_name, on="layer", how="left", maintain_order="left")
        for missing in layers.filter(pl.col("layer_dimension").is_null())["layer"][:1]:
            raise TableError(f"projections has no dimension of layer {missing!r}; make the table again")
        yield (str(key[0]), int(key[1])), layers


def observed_similarity(projected: pl.DataFrame, layer_dots: LayerDots, name: str, dimension: int) -> Floats:
    """(pairs,) stored similarities of a projection, in the order of the dots' pairs."""
    chosen = projected.filter(pl.col("projection") == name, pl.col("dimension") == dimension)
    rows = ordered_similarity(chosen, f"projected_similarity {name}-{dimension}")
    keys = ["query_id", "original_id"]
    texts = [frame.select(pl.col(keys).cast(pl.String)) for frame in (rows, layer_dots.pairs)]
    if not texts[0].equals(texts[1]):
        raise TableError(
            f"projected_similarity {name}-{dimension} has other pairs than dot_products; combine both again"
        )
    return rows["similarity"].to_numpy()


def _agreements(rows: pl.DataFrame, seed: int) -> dict[str, float]:
    """How alike a projection and the full gradient see the pairs; of the projection's own, with an interval."""
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
