"""From merged arrays to the rows of our tables."""

from collections.abc import Sequence

import polars as pl

from gradsim.published.merging import Merged
from gradsim.published.reading import Floats, Key


class TableRows:
    """Makes tables whose samples and layers are all known.

    Args:
        ids: every sample, in order.
        layers: in the model's order.
    """

    def __init__(self, ids: Sequence[str], layers: Sequence[str]) -> None:
        self._ids = pl.Enum(ids)
        self._position = {sample: position for position, sample in enumerate(ids)}
        self._layers = pl.DataFrame({"layer": layers}, schema={"layer": pl.Enum(layers)})

    def pairs(self, dots: Merged) -> tuple[pl.DataFrame, list[Key]]:
        """`query_id`, `original_id`, `rank` of each pair, and the pairs' keys in this order.

        Queries stand in the order of the ids, candidates as the file has them.
        """
        keys = sorted(dots.keys, key=lambda key: self._position[key[0]])
        queries, originals = zip(*keys, strict=True)
        frame = pl.DataFrame(
            {"query_id": queries, "original_id": originals},
            schema=dict.fromkeys(("query_id", "original_id"), self._ids),
        )
        return frame.with_columns(rank=pl.int_range(pl.len(), dtype=pl.Int32).over("query_id")), keys

    def dots(self, pairs: pl.DataFrame, values: Floats) -> pl.DataFrame:
        """A row a pair and layer, from (pairs, layers)."""
        return self._melted(pairs, "dot", values)

    def self_dots(self, self_dots: Merged, column: str) -> pl.DataFrame:
        """Return a row for each sample and layer, samples in the order of the ids.

        Loss and noise are null: the original did not publish them.
        """
        samples = sorted((name for (name,) in self_dots.keys), key=self._position.__getitem__)
        values = in_order(self_dots, [(sample,) for sample in samples])
        rows = self._melted(pl.DataFrame({column: samples}, schema={column: self._ids}), "self_dot", values)
        return rows.with_columns(loss=pl.lit(None, pl.Float64), noise=pl.lit(None, pl.Boolean))

    def _melted(self, keys: pl.DataFrame, name: str, values: Floats) -> pl.DataFrame:
        return keys.join(self._layers, how="cross", maintain_order="left_right").with_columns(
            pl.Series(name, values.ravel())
        )


def in_order(merged: Merged, keys: Sequence[Key]) -> Floats:
    """Values of the rows with these keys, in this order."""
    row_of = {key: row for row, key in enumerate(merged.keys)}
    return merged.values[[row_of[key] for key in keys]]
