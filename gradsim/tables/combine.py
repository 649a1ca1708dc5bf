"""Combine the partitions of a table into one table."""

from collections.abc import Iterable, Iterator

import polars as pl

from gradsim.errors import TableError

# Rule 5: maximum difference between two partitions' values of the same inner product, relative to the gradients' norms,
# or of the same loss, in nats (relative if the loss exceeds 1).
TOLERANCE = 1e-5

# Computed columns; the other columns are the key.
_COMPUTED = ("self_dot", "loss", "noise")


def combine(table: str, blocks: Iterable[pl.DataFrame]) -> Iterator[pl.DataFrame]:
    """Yield the rows of all partitions in order, frame by frame, without duplicates.

    Several partitions can contain the same original; the values of the first partition are used.

    Args:
        table: name of the table.
        blocks: rows of all partitions in partition order, at least one frame.

    Raises:
        TableError: partitions disagree on the values of an original.
    """
    if table in ("original_self", "projected_original_self"):
        yield _each_original_once(table, blocks)
    else:
        yield from blocks


def _each_original_once(table: str, blocks: Iterable[pl.DataFrame]) -> pl.DataFrame:
    """Return the first partition's values of each original; check that the other partitions agree."""
    known: list[pl.DataFrame] = []
    for block in blocks:
        computed = [name for name in _COMPUTED if name in block.columns]
        lowest, highest = ([f"{bound} {name}" for name in computed] for bound in ("lowest", "highest"))
        bounds = [pl.col(name).alias(f"{bound} {name}") for bound in ("lowest", "highest") for name in computed]
        met = pl.concat([*known, block.with_columns(bounds)])
        facts = met.group_by(pl.exclude(*computed, *lowest, *highest), maintain_order=True)
        known = [facts.agg(pl.col(computed).first(), pl.col(lowest).min(), pl.col(highest).max())]
    _check_agreement(table, known[0], "self_dot", _scale_of_self_dots(known[0]))
    if "loss" in known[0].columns:
        _check_agreement(table, known[0], "loss", pl.max_horizontal("highest loss", pl.lit(1.0)))
    order = [pl.col("original_id").to_physical(), pl.col("layer").to_physical()]
    if "projection" in known[0].columns:  # keep the study's order
        names = known[0]["projection"].unique(maintain_order=True)
        order.insert(1, pl.col("projection").cast(pl.Enum(names)).to_physical())
    return known[0].select(block.columns).sort(order)


def _scale_of_self_dots(facts: pl.DataFrame) -> pl.Expr:
    """Return the scale of rounding errors: the layer's self dot, or the sum over layers for projected or noise rows."""
    in_layer = pl.col("highest self_dot")
    if "projection" in facts.columns:  # a projection to few dimensions can lose almost all of a layer
        return in_layer.sum().over("projection", "original_id")
    return pl.when("highest noise").then(in_layer.sum().over("original_id")).otherwise(in_layer)


def _check_agreement(table: str, facts: pl.DataFrame, column: str, scale: pl.Expr) -> None:
    lowest, highest = pl.col(f"lowest {column}"), pl.col(f"highest {column}")
    for first in facts.filter(highest - lowest > TOLERANCE * scale).head(1).iter_rows(named=True):
        original = first["original_id"]
        place = f"the loss of {original}" if column == "loss" else f"{original}, layer {first['layer']}"
        raise TableError(
            f"{table}: partitions disagree on {place}: {first[f'lowest {column}']:.8g} and "
            f"{first[f'highest {column}']:.8g}; recompute them with --force"
        )
