"""Partitions of a table as one table."""

import polars as pl

from gradsim.errors import TableError

# Rule 5: the same dot from another partition may differ by this, relative to the gradients' norms.
TOLERANCE = 1e-5


def combine(table: str, partitions: pl.DataFrame) -> pl.DataFrame:
    """The rows of all partitions, one after the other, each fact once.

    An original that several partitions met stands in each of them; the first partition's value is taken.

    Args:
        table: the table's name.
        partitions: the rows of all partitions in partition order.

    Raises:
        TableError: two partitions have different values for the same original and layer.
    """
    if table != "original_self":
        return partitions
    _check_agreement(partitions)
    return partitions.unique(["original_id", "layer"], keep="first", maintain_order=True).sort(
        pl.col("original_id").to_physical(), pl.col("layer").to_physical()
    )


def _check_agreement(partitions: pl.DataFrame) -> None:
    low, high = pl.col("self_dot").min(), pl.col("self_dot").max()
    differing = (
        partitions.group_by("original_id", "layer", maintain_order=True)
        .agg(low=low, high=high)
        .filter(pl.col("high") - pl.col("low") > TOLERANCE * pl.col("high"))
    )
    if differing.height:
        first = differing.row(0, named=True)
        raise TableError(
            f"original_self: partitions disagree on {first['original_id']}, layer {first['layer']}: "
            f"{first['low']:.8g} and {first['high']:.8g}; they were computed differently, run them again with --force"
        )
