"""Partitions of a table as one table."""

from collections.abc import Iterable, Iterator

import polars as pl

from gradsim.errors import TableError

# Rule 5: the same dot from another partition may differ by this, relative to the gradients' norms.
TOLERANCE = 1e-5


def combine(table: str, blocks: Iterable[pl.DataFrame]) -> Iterator[pl.DataFrame]:
    """The rows of all partitions, one after the other, each fact once; a frame at a time.

    An original that several partitions met stands in each of them; the first partition's value is taken.

    Args:
        table: the table's name.
        blocks: the rows of all partitions in partition order, at least one frame.

    Raises:
        TableError: two partitions have different values for the same original and layer.
    """
    if table in ("original_self", "projected_original_self"):
        yield _each_original_once(table, blocks)
    else:
        yield from blocks


def _each_original_once(table: str, blocks: Iterable[pl.DataFrame]) -> pl.DataFrame:
    value = pl.col("self_dot")
    known: list[pl.DataFrame] = []
    for block in blocks:
        met = pl.concat([*known, block.with_columns(low=value, high=value)])
        facts = met.group_by(pl.exclude("self_dot", "low", "high"), maintain_order=True)
        known = [facts.agg(value.first(), pl.col("low").min(), pl.col("high").max())]
    _check_agreement(table, known[0])
    order = [pl.col("original_id").to_physical(), pl.col("layer").to_physical()]
    if "projection" in known[0].columns:  # in the order that they came in, the study's
        names = known[0]["projection"].unique(maintain_order=True)
        order.insert(1, pl.col("projection").cast(pl.Enum(names)).to_physical())
    return known[0].drop("low", "high").sort(order)


def _check_agreement(table: str, facts: pl.DataFrame) -> None:
    norm = pl.col("high")
    if "projection" in facts.columns:
        # What rounding may change goes by the layer's norm, of which few dimensions may keep next to nothing.
        norm = pl.col("high").sum().over("projection", "original_id")
    differing = facts.filter(pl.col("high") - pl.col("low") > TOLERANCE * norm)
    if differing.height:
        first = differing.row(0, named=True)
        raise TableError(
            f"{table}: partitions disagree on {first['original_id']}, layer {first['layer']}: "
            f"{first['low']:.8g} and {first['high']:.8g}; they were computed differently, run them again with --force"
        )
