"""Which layers of a setting hold only rounding."""

import polars as pl

# A layer that is marked in at least this share of the rows of a setting's self dots is noise for the setting.
SHARE = 0.5


def noise_layers(query_self: pl.DataFrame, original_self: pl.DataFrame) -> list[str]:
    """Return the layers whose gradient is only rounding in a setting, in the tables' order.

    Args:
        query_self: self dots of the queries. `noise` marks rows; null marks none, nor does a table without that
            column, such as those of projected gradients.
        original_self: self dots of the originals, likewise.
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
