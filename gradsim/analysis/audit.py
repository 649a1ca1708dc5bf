"""The audit of stored dots: a few pairs computed again with plain autograd, and how far off the stored numbers are."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from gradsim.analysis.noise import noise_layers
from gradsim.analysis.schema import Schema
from gradsim.errors import TableError

PAIRS = 5

# Precision that a study runs in -> the largest error that its rounding explains.
TOLERANCES: Mapping[str, float] = {"float32": 1e-5, "float64": 1e-5, "tf32": 3e-2, "bfloat16": 1e-1}

# Mean loss in nats below which a sample counts as memorised. A model in float32 keeps fewer digits of its gradient, see
# docs/gradients.md: errors are up to the second number over the loss, and up to the third at most.
MEMORISED, MEMORISED_TOLERANCE, LARGEST_TOLERANCE = 0.5, 2e-5, 2e-3

# A norm counts as at least this share of the whole gradient's: below, rounding of the whole pass exceeds a tolerance.
SMALLEST_SHARE = 1e-6

DOT, QUERY_SELF, ORIGINAL_SELF = "dot", "query_self", "original_self"

GRADIENT_AUDIT: Schema = {
    "query_id": (pl.String, "the pair's query; null for a self dot of an original"),
    "original_id": (pl.String, "the pair's original; null for a self dot of a query"),
    "quantity": (pl.String, "dot: of the pair; query_self, original_self: of a sample's gradient with itself"),
    "layer": (pl.String, "parameter tensor, in model order"),
    "stored": (pl.Float64, "the number that the study's analyses use"),
    "reference": (pl.Float64, "the number that plain autograd gives, one sample at a time"),
    "error": (
        pl.Float64,
        "difference of the two over the product of the two gradients' norms in this layer, by plain autograd; "
        "a norm counts as at least a millionth of the whole gradient's, and as all of it where the layer holds only "
        "rounding",
    ),
    "loss": (pl.Float64, "lowest mean loss of the samples, in nats: float32 keeps fewer digits of memorised ones"),
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
    """Choose the pairs to audit, all if there are no more than `number`.

    The first pair with the longest sample and the first with the most memorised one (the lowest loss) are always among
    them: long sequences and tiny gradients are where a rule for a layer is most likely to be off. The others are drawn
    at random.

    Args:
        dot_products: the stored table.
        query_self: the stored table.
        original_self: the stored table.
        query_tokens: `id` and `input_ids` of the queries.
        original_tokens: `id` and `input_ids` of the originals.
        seed: of the draw.
        number: of pairs.

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
    """Return the largest error that the rounding of a study's precision explains, given the column `loss`."""
    tolerance = pl.lit(TOLERANCES[precision])
    if precision != "float32":
        return tolerance
    of_memorised = pl.min_horizontal(MEMORISED_TOLERANCE / pl.col("loss"), pl.lit(LARGEST_TOLERANCE))
    return pl.when(pl.col("loss") < MEMORISED).then(of_memorised).otherwise(tolerance)


def gradient_audit(
    reference: pl.DataFrame, dot_products: pl.DataFrame, query_self: pl.DataFrame, original_self: pl.DataFrame
) -> pl.DataFrame:
    """Compare every number of the audited pairs as it is stored with what plain autograd gives.

    The dots come first, then the self dots of the pairs' queries and of their originals, each sample once.

    Args:
        reference: `query_id`, `original_id`, `layer` and, by plain autograd, `dot`, `query_self`, `original_self`;
            one row a pair and layer.
        dot_products: the stored table, of these pairs and others.
        query_self: the stored table, of these queries and others.
        original_self: the stored table, of these originals and others.

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
    """Add the column `loss`: the lower mean loss of each row's query and original, of one where the other is null."""
    for side, selves in (("query_id", query_self), ("original_id", original_self)):
        losses = selves.group_by(side).agg(pl.col("loss").first().alias(f"loss of {side}"))
        rows = rows.join(losses, on=side, how="left", maintain_order="left")
    return rows.with_columns(loss=pl.min_horizontal("^loss of .*$"))


def _norm(self_dot: str, noise: Sequence[str]) -> pl.Expr:
    """Return the norm that errors in each layer are measured by, see the column `error`."""
    in_layer, whole = pl.col(self_dot).sqrt(), pl.col(self_dot).sum().over("query_id", "original_id").sqrt()
    is_noise = pl.col("layer").cast(pl.String).is_in(list(noise))
    return pl.when(is_noise).then(whole).otherwise(pl.max_horizontal(in_layer, SMALLEST_SHARE * whole))


def _compared(reference: pl.DataFrame, quantity: str, scale: pl.Expr, stored: pl.DataFrame) -> pl.DataFrame:
    """One quantity of all audited pairs, in the columns of `GRADIENT_AUDIT` that it has."""
    table, value = ("dot_products", "dot") if quantity == DOT else (quantity, "self_dot")
    ids = [column for column in ("query_id", "original_id") if column in stored.columns]
    computed = reference.select(
        *ids, "layer", quantity=pl.lit(quantity), reference=pl.col(quantity), scale=scale
    ).unique([*ids, "layer"], keep="first", maintain_order=True)
    found = stored.join(computed.select(ids).unique(), on=ids, how="semi").select(*ids, "layer", stored=pl.col(value))
    if not found.select(*ids, "layer").sort(pl.all()).equals(computed.select(*ids, "layer").sort(pl.all())):
        raise TableError(f"{table} does not have the audited samples' layers once each: combine the partitions again")
    difference = (pl.col("stored") - pl.col("reference")).abs()
    return computed.join(found, on=[*ids, "layer"], maintain_order="left").with_columns(
        error=pl.when(difference == 0).then(0.0).otherwise(difference / pl.col("scale"))
    )


@dataclass(frozen=True)
class Verdict:
    """What an audit comes to.

    Attributes:
        pairs: number of pairs.
        numbers: dots and self dots that were compared, all layers counted.
        beyond: of these, those whose error is larger than the tolerance, or no number.
        tolerance: of the study's precision.
        memorised: numbers of memorised samples, whose tolerance is larger.
        worst: the largest error; NaN if one is no number, or nothing was compared.
        median: of the errors.
        where: which number is the worst, with its pair or sample and its layer.
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
        """Whether something was compared and all of it agrees."""
        return self.numbers > 0 and not self.beyond

    def __str__(self) -> str:
        if not self.numbers:
            return "nothing was compared"
        limit = f"{self.tolerance:g} of the norms' product"
        if self.memorised:
            limit += f" (more for {self.memorised} numbers of memorised samples)"
        if self.beyond:
            found = f"plain autograd differs from {self.beyond} of {self.numbers} numbers by more than {limit}"
        else:
            found = f"plain autograd gives the same {self.numbers} numbers within {limit}"
        return f"{found}; the worst, the {self.where}, is off by {self.worst:.2g}"


def audit_verdict(audit: pl.DataFrame, precision: str) -> Verdict:
    """Whether what is stored agrees with plain autograd.

    Args:
        audit: the table `gradient_audit`.
        precision: that the study ran in.
    """
    # NaN sorts as larger than every number, and compares so.
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
