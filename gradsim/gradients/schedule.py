"""The order of captures, comparisons and evictions at one block size.

Pure bookkeeping, no tensors. Samples are nodes 0, 1, ...; one that is both a query and an original is one node.
Queries are taken in consecutive blocks. Within a block all its queries are held while the originals that they need pass
by, each of which is captured or still there from an earlier block. When room is needed, what is needed again last
leaves first (Belady's rule: the best there is when the future is known, as it is here); what is never needed again
leaves at once.
"""

import heapq
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Integers = NDArray[np.int64]


@dataclass(frozen=True)
class Capture:
    """Run a sample forward and backward, and keep its gradients."""

    sample: int


@dataclass(frozen=True)
class Compare:
    """Compare a held original with the held queries of these pairs (positions, ascending)."""

    original: int
    pairs: Integers


@dataclass(frozen=True)
class Evict:
    """Drop a held sample."""

    sample: int


@dataclass(frozen=True)
class EndBlock:
    """Every pair of the queries before this position has been compared."""

    queries_done: int


Step = Capture | Compare | Evict | EndBlock


@dataclass(frozen=True)
class Task:
    """What is to be compared.

    Attributes:
        pairs: (n, 2) nodes, query and original.
        positions: (n,) ascending, by which `Compare` names the pairs.
        queries: (n,) position of each pair's query among the queries; blocks are ranges of these.
        n_queries: number of queries.
        sizes: bytes of each node's captured gradients.
        first: the node that is captured before anything else.
    """

    pairs: Integers
    positions: Integers
    queries: Integers
    n_queries: int
    sizes: Integers
    first: int | None = None


@dataclass(frozen=True)
class _Block:
    queries_done: int
    queries: list[int]
    visits: list[tuple[int, Integers]]


class Schedule:
    """All steps of a task, for a block size and a budget in bytes."""

    def __init__(self, task: Task, block_size: int, budget: int) -> None:
        self._task = task
        self._budget = budget
        self._blocks = list(_blocks(task, block_size))
        self._uses = _use_times(self._blocks, task.first)

    @property
    def unique_samples(self) -> int:
        """Samples that are needed at all."""
        return len(self._uses)

    def fits(self) -> bool:
        """Whether each block's queries and any one of its originals fit together."""
        sizes = self._task.sizes
        for block in self._blocks:
            others = [original for original, _ in block.visits if original not in block.queries]
            held = sizes[block.queries].sum() + sizes[others].max(initial=0)
            if held > self._budget:
                return False
        return True

    def cost(self) -> tuple[int, int]:
        """Captures and peak bytes."""
        captures = held = peak = 0
        for step in self.steps():
            match step:
                case Capture(sample):
                    captures += 1
                    held += int(self._task.sizes[sample])
                    peak = max(peak, held)
                case Evict(sample):
                    held -= int(self._task.sizes[sample])
        return captures, peak

    def steps(self) -> Iterator[Step]:
        """The steps in order; needs `fits`."""
        memory = _Memory(self._task.sizes, self._budget, self._uses)
        time = 0
        if self._task.first is not None:
            yield from memory.hold(self._task.first, time)
        for block in self._blocks:
            for query in block.queries:
                time += 1
                yield from memory.hold(query, time, pin=True)
            for original, pairs in block.visits:
                time += 1
                yield from memory.hold(original, time)
                yield Compare(original, pairs)
                yield from memory.release(original)
            for query in block.queries:
                yield from memory.release(query, unpin=True)
            yield EndBlock(block.queries_done)


class _Memory:
    """What is held, and what leaves first."""

    _NEVER = np.iinfo(np.int64).max

    def __init__(self, sizes: Integers, budget: int, uses: dict[int, list[int]]) -> None:
        self._sizes = sizes
        self._free = budget
        self._later_uses = {node: times[::-1] for node, times in uses.items()}
        self._due: dict[int, int] = {}
        """Next use of every node that is held."""
        self._pinned: set[int] = set()
        self._latest_due: list[tuple[int, int]] = []
        """Heap of (-due, node) of held nodes; entries whose due has passed or changed are void."""

    def hold(self, node: int, time: int, *, pin: bool = False) -> Iterator[Step]:
        """Have a node present at a time; a pinned one stays until it is released."""
        if node not in self._due:
            size = int(self._sizes[node])
            yield from self._make_room(size)
            self._free -= size
            yield Capture(node)
        if pin:
            self._pinned.add(node)
        later = self._later_uses[node]
        while later and later[-1] <= time:
            later.pop()
        self._due[node] = later[-1] if later else self._NEVER
        if node not in self._pinned:
            heapq.heappush(self._latest_due, (-self._due[node], node))

    def release(self, node: int, *, unpin: bool = False) -> Iterator[Step]:
        """Drop a node that is never needed again, or leave it to be evicted."""
        if unpin:
            self._pinned.remove(node)
        if node in self._pinned:
            return
        if self._due[node] == self._NEVER:
            yield self._evict(node)
        elif unpin:
            heapq.heappush(self._latest_due, (-self._due[node], node))

    def _make_room(self, size: int) -> Iterator[Step]:
        while self._free < size:
            minus_due, node = heapq.heappop(self._latest_due)
            if self._due.get(node) == -minus_due and node not in self._pinned:
                yield self._evict(node)

    def _evict(self, node: int) -> Evict:
        del self._due[node]
        self._free += int(self._sizes[node])
        return Evict(node)


def _blocks(task: Task, block_size: int) -> Iterator[_Block]:
    if len(task.pairs) == 0:
        return
    block_of_pair = task.queries // block_size
    queries, originals = task.pairs[:, 0], task.pairs[:, 1]
    order = np.lexsort((task.positions, originals, block_of_pair))
    ends = np.flatnonzero(np.diff(block_of_pair[order])) + 1
    for pairs in np.split(order, ends):
        visits = np.split(pairs, np.flatnonzero(np.diff(originals[pairs])) + 1)
        block = int(block_of_pair[pairs[0]])
        yield _Block(
            queries_done=min((block + 1) * block_size, task.n_queries),
            queries=[int(query) for query in np.unique(queries[pairs])],
            visits=[(int(originals[visit[0]]), task.positions[visit]) for visit in visits],
        )


def _use_times(blocks: list[_Block], first: int | None) -> dict[int, list[int]]:
    """When each node is needed, ascending; a time is a place in the order of `Schedule.steps`."""
    uses: dict[int, list[int]] = {} if first is None else {first: [0]}
    time = 0
    for block in blocks:
        for node in (*block.queries, *(original for original, _ in block.visits)):
            time += 1
            uses.setdefault(node, []).append(time)
    return uses
