"""Inputs of a gradient job: the queries of its partitions, their candidates, and the pairs."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import polars as pl
from numpy.typing import NDArray

from gradsim.errors import TableError
from gradsim.tables import Store


@dataclass(frozen=True)
class TokenSequence:
    """A tokenized sample, as input of the gradient engine."""

    id: str
    input_ids: list[int]
    labels: list[int]


@dataclass(frozen=True)
class PartitionSlice:
    """Positions of a partition's queries and pairs among those of the job."""

    setting: str
    key: str
    queries: slice
    pairs: slice


@dataclass(frozen=True)
class JobInputs:
    """Samples and pairs that a job compares.

    Attributes:
        queries: queries of all partitions, in order; an id can occur once per setting.
        originals: candidates of any query, in dataset order.
        candidates: `query_id`, `original_id` and `rank` of all partitions, in order.
        pairs: (n, 2) positions in `queries` (ascending) and `originals`, for each row of `candidates`.
        partitions: slices of each partition.
    """

    queries: list[TokenSequence]
    originals: list[TokenSequence]
    candidates: pl.DataFrame
    pairs: NDArray[np.int64]
    partitions: list[PartitionSlice]


def read_inputs(store: Store, parts: Sequence[tuple[str, str]]) -> JobInputs:
    """Read the inputs of gradient computations.

    Args:
        store: store of the study.
        parts: pairs of setting and partition.

    Raises:
        TableError: a table is missing, unreadable or has another fingerprint, or candidates do not match the samples.
    """
    queries = [store.read(store.lineage.key("tokenized", setting), [partition]) for setting, partition in parts]
    candidates = [
        store.read(store.lineage.key("candidates", setting), [partition]).select("query_id", "original_id", "rank")
        for setting, partition in parts
    ]
    all_candidates = pl.concat(candidates)
    originals = store.read(store.lineage.key("tokenized")).join(
        all_candidates.select(id="original_id").unique(), on="id", how="semi", maintain_order="left"
    )
    query_slices = _slices(queries)
    of_queries = []
    for (setting, partition), tokens, rows, place in zip(parts, queries, candidates, query_slices, strict=True):
        positions = _positions(rows["query_id"], tokens["id"])
        if not np.array_equal(np.unique(positions), np.arange(tokens.height)) or (np.diff(positions) < 0).any():
            key = store.lineage.key("candidates", setting)
            raise TableError(f"{key} {partition}: queries differ from those with tokens; recompute it")
        of_queries.append(positions + place.start)
    return JobInputs(
        queries=[sample for tokens in queries for sample in sequences(tokens)],
        originals=sequences(originals),
        candidates=all_candidates,
        pairs=np.column_stack([np.concatenate(of_queries), _positions(all_candidates["original_id"], originals["id"])]),
        partitions=[
            PartitionSlice(setting, partition, of_query, of_pairs)
            for (setting, partition), of_query, of_pairs in zip(parts, query_slices, _slices(candidates), strict=True)
        ],
    )


def _positions(values: pl.Series, among: pl.Series) -> NDArray[np.int64]:
    """Return the position of each value in `among`, which has unique values of the same Enum.

    Raises:
        TableError: a value is not in `among`.
    """
    assert isinstance(among.dtype, pl.Enum)
    assert values.dtype == among.dtype
    place = np.full(len(among.dtype.categories), -1, dtype=np.int64)
    place[among.to_physical().to_numpy()] = np.arange(len(among))
    found: NDArray[np.int64] = place[values.to_physical().to_numpy()]
    for unknown in values.filter(found < 0)[:1]:
        raise TableError(f"candidates: {values.name} {unknown!r} has no tokens; recompute the table")
    return found


def _slices(frames: Sequence[pl.DataFrame]) -> list[slice]:
    ends = np.cumsum([0, *(frame.height for frame in frames)]).tolist()
    return [slice(start, end) for start, end in pairwise(ends)]


def sequences(tokenized: pl.DataFrame) -> list[TokenSequence]:
    """Return the rows of a `tokenized` table."""
    return [TokenSequence(*row) for row in tokenized.select("id", "input_ids", "labels").iter_rows()]
