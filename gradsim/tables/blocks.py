"""Iterate over tables that are larger than memory."""

from collections.abc import Iterable, Iterator, Sequence

import polars as pl

from gradsim.tables.digest import BLOCK_ROWS


def blocks_of(rows: pl.LazyFrame) -> Iterator[pl.DataFrame]:
    """Yield the rows in frames of at most `BLOCK_ROWS`; an empty table yields one empty frame."""
    height = rows.select(pl.len()).collect().item()
    for start in range(0, max(height, 1), BLOCK_ROWS):
        yield rows.slice(start, BLOCK_ROWS).collect()


def whole_runs(blocks: Iterable[pl.DataFrame], columns: Sequence[str]) -> Iterator[pl.DataFrame]:
    """Regroup blocks so that consecutive rows with equal values in `columns` are never split between two frames."""
    begun: pl.DataFrame | None = None
    for block in blocks:
        rows = block if begun is None else pl.concat([begun, block])
        if rows.is_empty():
            continue
        runs = rows.select(pl.struct(columns).rle_id()).to_series()
        last = int(runs.search_sorted(runs[-1]))
        if last:
            yield rows[:last]
        begun = rows[last:]
    if begun is not None:
        yield begun
