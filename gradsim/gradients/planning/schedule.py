"""The order of captures, comparisons and evictions at one block size.

Pure bookkeeping, no tensors. Samples are nodes 0, 1, ...; one that is both a query and an original is one node.
Queries are taken in consecutive blocks. Within a block all its queries are held while the originals that they need pass
by in groups of similar length; what of a group is not held yet is captured as one batch. When room is needed, what is
needed again last leaves first (Belady's rule: the best there is when the future is known, as it is here); what is never
needed again leaves at once. A block begins with the originals that are still there. What leaves a device is copied to
the host where bringing it back is faster than to capture it again.
"""

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from gradsim.gradients.capture.batch import Batching

Integers = NDArray[np.int64]

# Originals that are compared together at most. Few pairs of a large group would be wanted.
_GROUP = 32


@dataclass(frozen=True)
class Capture:
    """Run samples forward and backward in one batch, and keep their gradients."""

    samples: tuple[int, ...]


@dataclass(frozen=True)
class Compare:
    """Compare held samples: these pairs (positions)."""

    pairs: Integers


@dataclass(frozen=True)
class Spill:
    """Copy a held sample to the host's memory and drop it on the device; the copy stays until `Evict`."""

    sample: int


@dataclass(frozen=True)
class Restore:
    """Hold samples again whose copies are in the host's memory."""

    samples: tuple[int, ...]


@dataclass(frozen=True)
class Drop:
    """Drop a held sample on the device, which is captured again or restored when it is needed again."""

    sample: int


@dataclass(frozen=True)
class Evict:
    """Forget a held sample for good, and its copy in the host's memory."""

    sample: int


@dataclass(frozen=True)
class EndBlock:
    """Every pair of the queries before this position has been compared."""

    queries_done: int


Step = Capture | Compare | Spill | Restore | Drop | Evict | EndBlock


@dataclass(frozen=True)
class Task:
    """What is to be compared.

    Attributes:
        pairs: (n, 2) nodes, query and original.
        positions: (n,) ascending, by which `Compare` names the pairs.
        queries: (n,) position of each pair's query among the queries; blocks are ranges of these.
        n_queries: number of queries.
        sizes: bytes of each node's captured gradients.
        tokens: of each node.
        batch_tokens: tokens of a batch, padding included; a longer sample runs alone.
        spill: (nodes,) whether copying a node to the host and back is faster than to capture it again.
        host_bytes: room for such copies.
        batching: which samples may share a batch.
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
    """All steps of a task, for a block size and a budget in bytes."""

    def __init__(self, task: Task, block_size: int, budget: int) -> None:
        self._task = task
        self._budget = budget
        self._sections = task.batching.sections(task.tokens)
        self._blocks = list(_blocks(task, block_size))
        self._uses = _uses(self._blocks)

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

    def steps(self) -> Iterator[Step]:
        """The steps in order; needs `fits`."""
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
        """Consecutive nodes that are short and similar enough to run together."""
        batch: list[int] = []
        for node in nodes:
            if batch and not self._may_run_together([*batch, node]):
                yield batch
                batch = []
            batch.append(node)
        if batch:
            yield batch

    def _groups(self, block: _Block, memory: "_Memory") -> Iterator[list[tuple[int, Integers]]]:
        """Consecutive visits whose originals have room beside the block's queries, and can be captured together."""
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
                # What was held may have had to leave.
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
    """What is held, and what leaves first."""

    _NEVER = np.iinfo(np.int64).max

    def __init__(self, task: Task, budget: int, uses: dict[int, list[int]]) -> None:
        self._sizes = task.sizes
        self._free = budget
        self._spill = task.spill
        self._host_free = task.host_bytes
        self._on_host: set[int] = set()
        self._later_uses = {node: times[::-1] for node, times in uses.items()}
        self._due: dict[int, int] = {}
        """The next block that needs a node that is held."""
        self._pins: dict[int, int] = {}
        """How often a node that is held is in use now."""
        self._latest_due: list[tuple[int, int]] = []
        """Heap of (-due, node) of held nodes; entries whose due has passed or changed are void."""

    def __contains__(self, node: int) -> bool:
        return node in self._due

    def hold(self, nodes: Sequence[int], block: int) -> Iterator[Step]:
        """Have nodes present in a block, until they are released."""
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
        """Drop nodes that are never needed again, leave others to be evicted."""
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
    """Which blocks need each node, ascending."""
    uses: dict[int, list[int]] = {}
    for number, block in enumerate(blocks):
        for node in dict.fromkeys((*block.queries, *(original for original, _ in block.visits))):
            uses.setdefault(node, []).append(number)
    return uses
