"""Audit of stored dot products: recompute a few pairs with plain autograd and measure the error."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from gradsim.analysis.layer_dots import noise_layers
from gradsim.analysis.schema import Column, Schema
from gradsim.errors import TableError

PAIRS = 5

# Precision of a study -> largest error that rounding explains.
TOLERANCES: Mapping[str, float] = {"float32": 1e-5, "float64": 1e-5, "tf32": 3e-2, "bfloat16": 1e-1}

# A sample is memorised if its mean loss, in nats, is below the first number. Its float32 gradient has fewer correct
# digits (see docs/gradients.md), so its tolerance is the second number divided by the loss, up to the third number.
MEMORISED, MEMORISED_TOLERANCE, LARGEST_TOLERANCE = 0.5, 2e-5, 2e-3

# Lower bound on a layer's norm, relative to the whole gradient's: rounding error of the whole pass hides smaller norms.
SMALLEST_SHARE = 1e-6

DOT, QUERY_SELF, ORIGINAL_SELF = "dot", "query_self", "original_self"

GRADIENT_AUDIT: Schema = {
    "query_id": Column(pl.String, "query of the pair; null for a self dot of an original"),
    "original_id": Column(pl.String, "original of the pair; null for a self dot of a query"),
    "quantity": Column(
        pl.String, "dot: dot product of the pair; query_self, original_self: self dot product of a sample"
    ),
    "layer": Column(pl.String, "parameter tensor, in model order"),
    "stored": Column(pl.Float64, "stored value, as used by the study's analyses"),
    "reference": Column(pl.Float64, "value from plain autograd, one sample at a time"),
    "error": Column(
        pl.Float64,
        "absolute difference divided by the product of the two gradients' norms in this layer, from plain autograd; a "
        "norm counts as at least a millionth of the whole gradient's norm, and as the whole norm if the layer holds "
        "only rounding error",
    ),
    "loss": Column(
        pl.Float64,
        "lowest mean loss of the samples, in nats; gradients of memorised samples are less precise in float32",
    ),
}


def audited_pairs(
    dot_products: pl.DataFrame,
    query_self: pl.DataFrame,
    original_self: pl.DataFrame,
    query_tokens: pl.DataFrame,
    original_tokens: pl.DataFrame,
    *,
    seed: int,
    number: int = PAIRS,
) -> pl.DataFrame:
    """Choose the pairs to audit; all pairs if there are at most `number`.

    The first pair with the longest sample and the first with the most memorised sample (the lowest loss) are always
    chosen: errors in a layer's gradient rule are most likely on long sequences and tiny gradients. The others are drawn
    at random.

    Args:
        dot_products: the stored table.
        query_self: the stored table.
        original_self: the stored table.
        query_tokens: `id` and `input_ids` of the queries.
        original_tokens: `id` and `input_ids` of the originals.
        seed: seed of the draw.
        number: number of pairs.

    Returns:
        `query_id` and `original_id`, in the order of `dot_products`.

    Raises:
        TableError: there is no pair.
    """
    if dot_products.is_empty():
        raise TableError("dot_products has no rows: compute at least one partition")
    pairs = _with_loss(
        dot_products.select("query_id", "original_id").unique(maintain_order=True), query_self, original_self
    )
    for side, tokens in (("query_id", query_tokens), ("original_id", original_tokens)):
        length = tokens.select(pl.col("id").alias(side), pl.col("input_ids").list.len().alias(f"length of {side}"))
        pairs = pairs.join(length, on=side, how="left", maintain_order="left")
    longest = pairs.select(pl.max_horizontal("^length of .*$").arg_max()).item()
    memorised = pairs.select(pl.col("loss").arg_min()).item()
    always = np.unique([longest, memorised])[:number]
    others = np.setdiff1d(np.arange(len(pairs)), always)
    drawn = np.random.default_rng(seed).choice(others, min(number - len(always), len(others)), replace=False)
    return pairs[np.sort(np.concatenate([always, drawn]))].select("query_id", "original_id")


def tolerance_of(precision: str) -> pl.Expr:
    """Return the largest error that rounding explains in a precision, as an expression of the column `loss`."""
    tolerance = pl.lit(TOLERANCES[precision])
    if precision != "float32":
        return tolerance
    of_memorised = pl.min_horizontal(MEMORISED_TOLERANCE / pl.col("loss"), pl.lit(LARGEST_TOLERANCE))
    return pl.when(pl.col("loss") < MEMORISED).then(of_memorised).otherwise(tolerance)


def gradient_audit(
    reference: pl.DataFrame, dot_products: pl.DataFrame, query_self: pl.DataFrame, original_self: pl.DataFrame
) -> pl.DataFrame:
    """Compare every stored number of the audited pairs with its value from plain autograd.

    Dot products come first, followed by the self dots of the queries and of the originals, once per sample.

    Args:
        reference: `query_id`, `original_id`, `layer`, and the values `dot`, `query_self` and `original_self` from plain
            autograd; one row per pair and layer.
        dot_products: the stored table, with at least these pairs.
        query_self: the stored table, with at least these queries.
        original_self: the stored table, with at least these originals.

    Raises:
        TableError: a stored table and the reference do not have the same layers of the same samples.
    """
    noise = noise_layers(query_self, original_self)
    of_query, of_original = _norm(QUERY_SELF, noise), _norm(ORIGINAL_SELF, noise)
    numbers = pl.concat(
        [
            _compared(reference, DOT, of_query * of_original, dot_products),
            _compared(reference, QUERY_SELF, of_query**2, query_self),
            _compared(reference, ORIGINAL_SELF, of_original**2, original_self),
        ],
        how="diagonal",
    )
    return _with_loss(numbers, query_self, original_self).select(GRADIENT_AUDIT.keys())


def _with_loss(rows: pl.DataFrame, query_self: pl.DataFrame, original_self: pl.DataFrame) -> pl.DataFrame:
    """Add the column `loss`: the lower mean loss of each row's query and original, ignoring nulls."""
    for side, selves in (("query_id", query_self), ("original_id", original_self)):
        losses = selves.group_by(side).agg(pl.col("loss").first().alias(f"loss of {side}"))
        rows = rows.join(losses, on=side, how="left", maintain_order="left")
    return rows.with_columns(loss=pl.min_horizontal("^loss of .*$"))


def _norm(self_dot: str, noise: Sequence[str]) -> pl.Expr:
    """Return the norm that scales the errors in each layer, as described for the column `error`."""
    in_layer, whole = pl.col(self_dot).sqrt(), pl.col(self_dot).sum().over("query_id", "original_id").sqrt()
    is_noise = pl.col("layer").cast(pl.String).is_in(list(noise))
    return pl.when(is_noise).then(whole).otherwise(pl.max_horizontal(in_layer, SMALLEST_SHARE * whole))


def _compared(reference: pl.DataFrame, quantity: str, scale: pl.Expr, stored: pl.DataFrame) -> pl.DataFrame:
    """Return one quantity of all audited pairs, with its columns of `GRADIENT_AUDIT`."""
    table, value = ("dot_products", "dot") if quantity == DOT else (quantity, "self_dot")
    ids = [column for column in ("query_id", "original_id") if column in stored.columns]
    computed = reference.select(
        *ids, "layer", quantity=pl.lit(quantity), reference=pl.col(quantity), scale=scale
    ).unique([*ids, "layer"], keep="first", maintain_order=True)
    found = stored.join(computed.select(ids).unique(), on=ids, how="semi").select(*ids, "layer", stored=pl.col(value))
    if not found.select(*ids, "layer").sort(pl.all()).equals(computed.select(*ids, "layer").sort(pl.all())):
        raise TableError(
            f"{table} does not have each layer of the audited samples exactly once: combine the partitions again"
        )
    difference = (pl.col("stored") - pl.col("reference")).abs()
    return computed.join(found, on=[*ids, "layer"], maintain_order="left").with_columns(
        error=pl.when(difference == 0).then(0.0).otherwise(difference / pl.col("scale"))
    )


@dataclass(frozen=True)
class Verdict:
    """Result of an audit.

    Attributes:
        pairs: number of audited pairs.
        numbers: number of compared dots and self dots, over all layers.
        beyond: number of values with an error that is NaN or above the tolerance.
        tolerance: tolerance of the study's precision.
        memorised: number of values of memorised samples, which have a higher tolerance.
        worst: largest error; NaN if an error is NaN or nothing was compared.
        median: median error.
        where: quantity, pair or sample, and layer of the largest error.
    """

    pairs: int
    numbers: int
    beyond: int
    tolerance: float
    memorised: int
    worst: float
    median: float
    where: str

    @property
    def passed(self) -> bool:
        """True if at least one value was compared and all values agree."""
        return self.numbers > 0 and not self.beyond

    def __str__(self) -> str:
        if not self.numbers:
            return "nothing was compared"
        limit = f"{self.tolerance:g} of the norms' product"
        if self.memorised:
            limit += f" (higher for {self.memorised} numbers of memorised samples)"
        if self.beyond:
            found = f"plain autograd differs from {self.beyond} of {self.numbers} numbers by more than {limit}"
        else:
            found = f"plain autograd gives the same {self.numbers} numbers within {limit}"
        return f"{found}; the worst, the {self.where}, is off by {self.worst:.2g}"


def audit_verdict(audit: pl.DataFrame, precision: str) -> Verdict:
    """Return the verdict on the agreement of stored values with plain autograd.

    Args:
        audit: the table `gradient_audit`.
        precision: precision of the study.
    """
    # polars sorts and compares NaN as larger than every number.
    worst = audit.sort("error", descending=True, maintain_order=True).head(1)
    beyond = audit.filter(pl.col("error") > tolerance_of(precision))
    return Verdict(
        pairs=audit.filter(quantity=DOT).select("query_id", "original_id").n_unique(),
        numbers=len(audit),
        beyond=beyond.height,
        tolerance=TOLERANCES[precision],
        memorised=audit.filter(tolerance_of(precision) > TOLERANCES[precision]).height,
        worst=worst["error"][0] if len(worst) else np.nan,
        median=float(np.median(audit["error"])) if len(audit) else np.nan,
        where=_where(worst.row(0, named=True)) if len(worst) else "nothing",
    )


def _where(row: Mapping[str, object]) -> str:
    sides = [f"{side} {row[f'{side}_id']!r}" for side in ("query", "original") if row[f"{side}_id"] is not None]
    return f"{'dot' if row['quantity'] == DOT else 'self dot'} of {' and '.join(sides)} in {row['layer']}"
