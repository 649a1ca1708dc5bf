"""Detection of layers that hold only rounding error."""

import polars as pl

# A layer is noise for a setting if at least this share of its self dot rows is marked.
SHARE = 0.5


def noise_layers(query_self: pl.DataFrame, original_self: pl.DataFrame) -> list[str]:
    """Return the layers with gradients that are only rounding error in a setting, in table order.

    Args:
        query_self: self dots of the queries. `noise` marks rows. Null marks no row, and neither does a missing column
            (as for projected gradients).
        original_self: self dots of the originals, in the same format.
    """
    marks = [frame for frame in (query_self, original_self) if "noise" in frame.columns]
    if not marks:
        return []
    counts = pl.concat(
        frame.group_by("layer", maintain_order=True)
        .agg(marked=pl.col("noise").sum(), rows=pl.len())
        .with_columns(pl.col("layer").cast(pl.String))
        for frame in marks
    )
    totals = counts.group_by("layer", maintain_order=True).sum()
    return totals.filter(pl.col("marked") >= SHARE * pl.col("rows"))["layer"].to_list()
