"""Collect the pairs that a setting's partitions compare, from stored tables or estimated."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from gradsim.analysis.arrays import Positions
from gradsim.forecast.sources import Originals, Sources, blank, encoded
from gradsim.gradients.capture.encoding import Encoded, Nodes
from gradsim.gradients.planning.alternatives import PairsToRun
from gradsim.gradients.planning.prediction import pairs_to_run
from gradsim.study.partitions import Partition

LENGTHS, CANDIDATES = "lengths", "candidates"


@dataclass(frozen=True, eq=False)
class PartitionInputs:
    """Inputs of one partition's comparisons.

    Attributes:
        queries: queries of the partition.
        pairs: (n, 2) positions in `queries` and in all originals.
        estimated: estimated parts of the inputs: `LENGTHS`, `CANDIDATES` or both.
    """

    queries: list[Encoded]
    pairs: Positions
    estimated: frozenset[str]


@dataclass(frozen=True, eq=False)
class ForecastInputs:
    """Inputs of the comparisons of one job.

    Attributes:
        queries: queries of all partitions, in order.
        originals: originals in at least one pair, in dataset order.
        pairs: (n, 2) positions in `queries` and `originals`.
    """

    queries: list[Encoded]
    originals: list[Encoded]
    pairs: Positions

    @classmethod
    def of(cls, partitions: Sequence[PartitionInputs], originals: Originals) -> "ForecastInputs":
        """Return the combined inputs of several partitions."""
        before = np.cumsum([0, *(len(partition.queries) for partition in partitions)])
        pairs = np.concatenate(
            [part.pairs + np.array([start, 0]) for part, start in zip(partitions, before[:-1], strict=True)]
        )
        used, places = np.unique(pairs[:, 1], return_inverse=True)
        return cls(
            queries=[query for partition in partitions for query in partition.queries],
            originals=[originals.samples[place] for place in used.tolist()],
            pairs=np.column_stack([pairs[:, 0], places]).astype(np.int64),
        )

    def comparison(self) -> PairsToRun:
        """Return the comparison for the planner, in which equal samples are merged."""
        return pairs_to_run(Nodes.of(self.queries, self.originals), self.pairs)


def partition_inputs(sources: Sources, setting: str, partition: Partition) -> PartitionInputs:
    """Return the inputs of a partition, read from fresh tables or estimated.

    Raises:
        GradsimError: Stored or loaded data is unavailable or invalid.
    """
    originals, key = sources.originals, sources.store.lineage.key
    estimated = {LENGTHS} if originals.estimated else set()
    if sources.fresh("tokenized", setting, partition.key):
        tokenized = sources.store.read(key("tokenized", setting), [partition.key])
        queries = encoded(tokenized, sources.limits)
    else:
        queries = _as_long_as_their_originals(sources, setting, partition)
        estimated.add(LENGTHS)
    if sources.fresh("candidates", setting, partition.key):
        candidates = sources.store.read(key("candidates", setting), [partition.key])
        pairs = _pairs(candidates, queries, originals)
    else:
        pairs = _drawn(queries, originals, sources.store.study.top_k, (sources.store.study.seed, partition.start))
        estimated.add(CANDIDATES)
    return PartitionInputs(queries, pairs, frozenset(estimated))


def _as_long_as_their_originals(sources: Sources, setting: str, partition: Partition) -> list[Encoded]:
    """Return placeholders for a partition's queries, with the lengths of their originals; skip excluded originals."""
    # A distinct token per setting keeps a placeholder from being merged with its original or another query.
    token = 1 + list(sources.store.study.settings).index(setting)
    originals = sources.originals
    ids = sources.samples["id"][partition.start : partition.end]
    own = [originals.samples[originals.position[each]] for each in ids if each in originals.position]
    return [blank(sample.id, len(sample.tokens), len(sample.positions), token) for sample in own]


def _pairs(candidates: pl.DataFrame, queries: Sequence[Encoded], originals: Originals) -> Positions:
    place = {query.id: position for position, query in enumerate(queries)}
    rows = candidates.select("query_id", "original_id").iter_rows()
    found = [(place[query], originals.position[original]) for query, original in rows]
    return np.array(found, dtype=np.int64).reshape(-1, 2)


def _drawn(queries: Sequence[Encoded], originals: Originals, top_k: int | str, seed: tuple[int, ...]) -> Positions:
    """Return pairs of each query with its own original and with randomly drawn others."""
    random = np.random.default_rng(seed)
    total = len(originals.samples)
    count = total if isinstance(top_k, str) else min(top_k, total)
    pairs = np.empty((len(queries), count, 2), dtype=np.int64)
    for place, query in enumerate(queries):
        own = originals.position[query.id]
        others = random.choice(total - 1, count - 1, replace=False)
        pairs[place, :, 0] = place
        pairs[place, :, 1] = [own, *(others + (others >= own))]
    return pairs.reshape(-1, 2)
