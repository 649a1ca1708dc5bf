"""What a gradient job reads: queries of its partitions, the originals they are compared with, and the pairs."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import polars as pl
from numpy.typing import NDArray

from gradsim.errors import TableError
from gradsim.partition_job.job import PartitionJob
from gradsim.tables import Store


@dataclass(frozen=True)
class TokenSequence:
    """A sample as the gradient engine wants it."""

    id: str
    input_ids: list[int]
    labels: list[int]


@dataclass(frozen=True)
class PartitionSlice:
    """Where a partition's queries and pairs stand among the job's."""

    key: str
    queries: slice
    pairs: slice


@dataclass(frozen=True)
class JobInputs:
    """Everything that a job compares.

    Attributes:
        queries: of all partitions, in order.
        originals: those that are a candidate of any query, in dataset order.
        candidates: `query_id`, `original_id` and `rank` of all partitions' candidates, in order.
        pairs: (n, 2) positions in `queries`, ascending, and `originals`, one row a row of `candidates`.
        partitions: which queries and pairs are whose.
    """

    queries: list[TokenSequence]
    originals: list[TokenSequence]
    candidates: pl.DataFrame
    pairs: NDArray[np.int64]
    partitions: list[PartitionSlice]


def read_inputs(job: PartitionJob, store: Store, partitions: Sequence[str]) -> JobInputs:
    """Read what the gradients of these partitions need.

    Raises:
        TableError: a table is missing, unreadable or of another definition; candidates do not fit the samples.
    """
    queries = [store.read(job.key("tokenized"), [partition]) for partition in partitions]
    candidates = [
        store.read(job.key("candidates"), [partition]).select("query_id", "original_id", "rank")
        for partition in partitions
    ]
    all_queries, all_candidates = pl.concat(queries), pl.concat(candidates)
    originals = store.read(store.lineage.key("tokenized")).join(
        all_candidates.select(id="original_id").unique(), on="id", how="semi", maintain_order="left"
    )
    pairs = np.column_stack(
        [
            _positions(all_candidates["query_id"], all_queries["id"]),
            _positions(all_candidates["original_id"], originals["id"]),
        ]
    )
    if not np.array_equal(np.unique(pairs[:, 0]), np.arange(all_queries.height)) or (np.diff(pairs[:, 0]) < 0).any():
        raise TableError(f"{job.key('candidates')}: not those of the queries with tokens, in order; make it again")
    return JobInputs(
        queries=sequences(all_queries),
        originals=sequences(originals),
        candidates=all_candidates,
        pairs=pairs,
        partitions=[
            PartitionSlice(key, query_slice, pair_slice)
            for key, query_slice, pair_slice in zip(partitions, _slices(queries), _slices(candidates), strict=True)
        ],
    )


def _positions(values: pl.Series, among: pl.Series) -> NDArray[np.int64]:
    """Where each value stands in `among`, whose values are unique; both are of one Enum.

    Raises:
        TableError: a value is not there.
    """
    assert isinstance(among.dtype, pl.Enum)
    assert values.dtype == among.dtype
    place = np.full(len(among.dtype.categories), -1, dtype=np.int64)
    place[among.to_physical().to_numpy()] = np.arange(len(among))
    found: NDArray[np.int64] = place[values.to_physical().to_numpy()]
    for unknown in values.filter(found < 0)[:1]:
        raise TableError(f"candidates: {values.name} {unknown!r} has no tokens; make the table again")
    return found


def _slices(frames: Sequence[pl.DataFrame]) -> list[slice]:
    ends = np.cumsum([0, *(frame.height for frame in frames)]).tolist()
    return [slice(start, end) for start, end in pairwise(ends)]


def sequences(tokenized: pl.DataFrame) -> list[TokenSequence]:
    """The rows of a table of token ids."""
    return [TokenSequence(*row) for row in tokenized.select("id", "input_ids", "labels").iter_rows()]
