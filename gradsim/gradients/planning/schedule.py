"""Schedule captures, comparisons and evictions for one block size.

This module only does bookkeeping and holds no tensors. Samples are nodes 0, 1, ...; a sample that is both a query and
an original is one node. Queries are processed in consecutive blocks. A block holds all its queries while their
originals stream through in groups of similar length; the originals of a group that are not held yet are captured as one
batch. A block starts with the originals that are still held.

If memory runs out, the node with the latest next use leaves first (Belady's algorithm, optimal because all uses are
known in advance). Nodes that are not needed again leave immediately. A node that leaves the device is copied to the
host if restoring it is faster than capturing it again.
"""

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from gradsim.gradients.capture.batch import Batching

Integers = NDArray[np.int64]

# Maximum number of originals compared together. Most pairs of a larger group would not be requested.
_GROUP = 32


@dataclass(frozen=True)
class Capture:
    """Run samples forward and backward in one batch, and keep their gradients."""

    samples: tuple[int, ...]


@dataclass(frozen=True)
class Compare:
    """Compare held samples, given the positions of their pairs."""

    pairs: Integers


@dataclass(frozen=True)
class Spill:
    """Copy a held sample to host memory and free it on the device; keep the copy until `Evict`."""

    sample: int


@dataclass(frozen=True)
class Restore:
    """Copy spilled samples from host memory back to the device."""

    samples: tuple[int, ...]


@dataclass(frozen=True)
class Drop:
    """Free a held sample on the device; it is captured again or restored at its next use."""

    sample: int


@dataclass(frozen=True)
class Evict:
    """Discard a held sample and its copy in host memory; it is not needed again."""

    sample: int


@dataclass(frozen=True)
class EndBlock:
    """Mark the end of a block: all pairs of the queries before this position have been compared."""

    queries_done: int


Step = Capture | Compare | Spill | Restore | Drop | Evict | EndBlock


@dataclass(frozen=True)
class Task:
    """Pairs to compare, and the sizes and limits that determine a schedule.

    Attributes:
        pairs: (n, 2) nodes, query and original.
        positions: (n,) ascending positions, by which `Compare` refers to pairs.
        queries: (n,) position of each pair's query among the queries; blocks are ranges of these.
        n_queries: number of queries.
        sizes: (nodes,) bytes of each node's captured gradients.
        tokens: (nodes,) tokens of each node.
        batch_tokens: maximum tokens of a batch, including padding; a longer sample runs alone.
        spill: (nodes,) whether copying a node to the host and back is faster than capturing it again.
        host_bytes: host memory available for copies.
        batching: rules for samples that share a batch.
    """

    pairs: Integers
    positions: Integers
    queries: Integers
    n_queries: int
    sizes: Integers
    tokens: Integers
    batch_tokens: int
    spill: NDArray[np.bool_]
    host_bytes: int = 0
    batching: Batching = field(default_factory=Batching)


@dataclass(frozen=True)
class _Block:
    queries_done: int
    queries: list[int]
    visits: list[tuple[int, Integers]]


class Schedule:
    """Steps of a task at a given block size and budget in bytes."""

    def __init__(self, task: Task, block_size: int, budget: int) -> None:
        self._task = task
        self._budget = budget
        self._sections = task.batching.sections(task.tokens)
        self._blocks = list(_blocks(task, block_size))
        self._uses = _uses(self._blocks)

    @property
    def unique_samples(self) -> int:
        """Number of samples that at least one pair needs."""
        return len(self._uses)

    def fits(self) -> bool:
        """Return whether each block's queries fit into the budget together with any one of its originals."""
        sizes = self._task.sizes
        for block in self._blocks:
            others = [original for original, _ in block.visits if original not in block.queries]
            held = sizes[block.queries].sum() + sizes[others].max(initial=0)
            if held > self._budget:
                return False
        return True

    def steps(self) -> Iterator[Step]:
        """Yield the steps in order; the schedule must fit, see `fits`."""
        memory = _Memory(self._task, self._budget, self._uses)
        for number, block in enumerate(self._blocks):
            for batch in self._batches(block.queries):
                yield from memory.hold(batch, number)
            for group in self._groups(block, memory):
                originals = [original for original, _ in group]
                yield from memory.hold(originals, number)
                yield Compare(np.sort(np.concatenate([pairs for _, pairs in group])))
                yield from memory.release(originals)
            yield from memory.release(block.queries)
            yield EndBlock(block.queries_done)

    def _batches(self, nodes: Sequence[int]) -> Iterator[list[int]]:
        """Yield batches of consecutive nodes that may run together."""
        batch: list[int] = []
        for node in nodes:
            if batch and not self._may_run_together([*batch, node]):
                yield batch
                batch = []
            batch.append(node)
        if batch:
            yield batch

    def _groups(self, block: _Block, memory: "_Memory") -> Iterator[list[tuple[int, Integers]]]:
        """Yield groups of visits whose originals fit next to the block's queries and may run together."""
        room = self._budget - int(self._task.sizes[block.queries].sum())
        queries = set(block.queries)
        group: list[tuple[int, Integers]] = []
        missing: list[int] = []
        taken = 0
        for visit in sorted(block.visits, key=lambda visit: visit[0] not in memory):
            original = visit[0]
            size = 0 if original in queries else int(self._task.sizes[original])
            captured = [] if original in memory else [original]
            together = self._may_run_together([*missing, *captured])
            if group and (len(group) == _GROUP or taken + size > room or not together):
                yield group
                # Holding the previous group may have evicted this original.
                captured = [] if original in memory else [original]
                group, missing, taken = [], [], 0
            group.append(visit)
            missing += captured
            taken += size
        if group:
            yield group

    def _may_run_together(self, nodes: Sequence[int]) -> bool:
        if len(nodes) < 2:
            return True
        tokens, sections = self._task.tokens[list(nodes)], self._sections[list(nodes)]
        longest, shortest = int(tokens.max()), int(tokens.min())
        return (
            len(nodes) * longest <= self._task.batch_tokens
            and longest <= self._task.batching.stretch * shortest
            and int(sections.max()) == int(sections.min())
        )


class _Memory:
    """Held nodes, and the order in which they leave."""

    _NEVER = np.iinfo(np.int64).max

    def __init__(self, task: Task, budget: int, uses: dict[int, list[int]]) -> None:
        self._sizes = task.sizes
        self._free = budget
        self._spill = task.spill
        self._host_free = task.host_bytes
        self._on_host: set[int] = set()
        self._later_uses = {node: times[::-1] for node, times in uses.items()}
        self._due: dict[int, int] = {}
        """Next block that needs each held node."""
        self._pins: dict[int, int] = {}
        """Number of current uses of each held node."""
        self._latest_due: list[tuple[int, int]] = []
        """Heap of (-due, node) of held nodes; entries with an outdated due are ignored."""

    def __contains__(self, node: int) -> bool:
        return node in self._due

    def hold(self, nodes: Sequence[int], block: int) -> Iterator[Step]:
        """Yield the steps that make nodes available in a block, and pin the nodes until they are released."""
        missing = [node for node in nodes if node not in self._due]
        for node in nodes:
            self._pins[node] = self._pins.get(node, 0) + 1
        if missing:
            yield from self._make_room(int(self._sizes[missing].sum()))
            if restored := tuple(node for node in missing if node in self._on_host):
                yield Restore(restored)
            if captured := tuple(node for node in missing if node not in self._on_host):
                yield Capture(captured)
        for node in nodes:
            later = self._later_uses[node]
            while later and later[-1] <= block:
                later.pop()
            self._due[node] = later[-1] if later else self._NEVER

    def release(self, nodes: Sequence[int]) -> Iterator[Step]:
        """Unpin nodes: evict those that are not needed again, and let the others leave when room is needed."""
        for node in nodes:
            self._pins[node] -= 1
            if self._pins[node]:
                continue
            del self._pins[node]
            if self._due[node] == self._NEVER:
                self._remove(node)
                if node in self._on_host:
                    self._on_host.remove(node)
                    self._host_free += int(self._sizes[node])
                yield Evict(node)
            else:
                heapq.heappush(self._latest_due, (-self._due[node], node))

    def _make_room(self, size: int) -> Iterator[Step]:
        while self._free < size:
            minus_due, node = heapq.heappop(self._latest_due)
            if self._due.get(node) == -minus_due and node not in self._pins:
                self._remove(node)
                yield self._spilled_or_dropped(node)
        self._free -= size

    def _spilled_or_dropped(self, node: int) -> Step:
        size = int(self._sizes[node])
        if node in self._on_host or not self._spill[node] or size > self._host_free:
            return Drop(node)
        self._on_host.add(node)
        self._host_free -= size
        return Spill(node)

    def _remove(self, node: int) -> None:
        del self._due[node]
        self._free += int(self._sizes[node])


def _blocks(task: Task, block_size: int) -> Iterator[_Block]:
    if len(task.pairs) == 0:
        return
    block_of_pair = task.queries // block_size
    queries, originals = task.pairs[:, 0], task.pairs[:, 1]
    order = np.lexsort((task.positions, originals, task.tokens[originals], block_of_pair))
    ends = np.flatnonzero(np.diff(block_of_pair[order])) + 1
    for pairs in np.split(order, ends):
        visits = np.split(pairs, np.flatnonzero(np.diff(originals[pairs])) + 1)
        block = int(block_of_pair[pairs[0]])
        needed = np.unique(queries[pairs])
        yield _Block(
            queries_done=min((block + 1) * block_size, task.n_queries),
            queries=needed[np.argsort(task.tokens[needed], kind="stable")].tolist(),
            visits=[(int(originals[visit[0]]), task.positions[visit]) for visit in visits],
        )


def _uses(blocks: list[_Block]) -> dict[int, list[int]]:
    """Return the ascending numbers of the blocks that need each node."""
    uses: dict[int, list[int]] = {}
    for number, block in enumerate(blocks):
        for node in dict.fromkeys((*block.queries, *(original for original, _ in block.visits))):
            uses.setdefault(node, []).append(number)
    return uses
