"""Choosing the schedule: what costs least within the memory budget, predicted before the run."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from gradsim.errors import MemoryBudgetError
from gradsim.gradients.planning.schedule import Capture, Compare, Drop, Evict, Restore, Schedule, Spill, Step, Task

Floats = NDArray[np.float64]

# Queries of a block, if memory allows: enough to fill batches of similar length, few enough that results come early.
_BLOCK = 64

# A schedule that may have more visits of originals is not tried if one with larger blocks fits.
_MOST_VISITS = 100_000


@dataclass(frozen=True)
class Cost:
    """What a comparison takes.

    Attributes:
        passes: samples that are run forward and backward, every repetition counted.
        batches: in so many batches.
        tokens: that are run, padding included.
        operations: floating-point operations of passes, gradients and products.
        moved_bytes: of gradients that are read to compare them, and that projecting reads and writes.
        spilled_bytes: that are copied to the host and back.
        peak_bytes: most bytes of captured gradients that are held at once.
        most_held: most samples that are held at once.
    """

    passes: int
    batches: int
    tokens: int
    operations: float
    moved_bytes: int
    spilled_bytes: int
    peak_bytes: int
    most_held: int


@dataclass(frozen=True)
class Alternative:
    """One alternative for a comparison: which gradients are built, and what that makes of sizes and costs.

    Attributes:
        task: what is compared, with the bytes of each node.
        built: (layers,) whether a layer's gradient is built.
        per_token: operations of a pass for each token.
        per_pair: operations of a pass for every two tokens of a sample: attention.
        per_sample: (nodes,) operations to build and project the gradients.
        product_operations: of all pairs and self dots.
        row_bytes: of a sample's built gradients and projected vectors, read once for what is compared together.
        working_bytes: what the largest pass needs beside what is held.
        checkpoint: whether passes that need more than `working_bytes` checkpoint their blocks.
        per_spilled_byte: operations in the time that it takes to copy a byte to the host or back.
        by_term: (projections, layers) whether terms are projected as they come, or the gradient.
        projected_bytes: that projecting a sample reads and writes.
    """

    task: Task
    built: NDArray[np.bool_]
    per_token: float
    per_pair: float
    per_sample: Floats
    product_operations: float
    row_bytes: int
    working_bytes: int
    checkpoint: bool = False
    per_spilled_byte: float = 0.0
    by_term: NDArray[np.bool_] = field(default_factory=lambda: np.zeros((0, 0), dtype=bool))
    projected_bytes: float = 0.0

    def cost(self, steps: Iterator[Step]) -> Cost:
        """Of a schedule of the task."""
        tokens, sizes = self.task.tokens, self.task.sizes
        passes = batches = run = held = peak = count = most = spilled = rows = 0
        operations = self.product_operations
        for step in steps:
            match step:
                case Capture(samples):
                    nodes = list(samples)
                    longest = int(tokens[nodes].max())
                    passes, batches, run = passes + len(nodes), batches + 1, run + len(nodes) * longest
                    operations += len(nodes) * longest * (self.per_token + self.per_pair * longest)
                    operations += float(self.per_sample[nodes].sum())
                    held, count = held + int(sizes[nodes].sum()), count + len(nodes)
                    peak, most = max(peak, held), max(most, count)
                case Restore(samples):
                    size = int(sizes[list(samples)].sum())
                    held, count, spilled = held + size, count + len(samples), spilled + size
                    peak, most = max(peak, held), max(most, count)
                case Spill(sample):
                    held, count, spilled = held - int(sizes[sample]), count - 1, spilled + int(sizes[sample])
                case Drop(sample) | Evict(sample):
                    held, count = held - int(sizes[sample]), count - 1
                case Compare(positions) if self.row_bytes:
                    pairs = self.task.pairs[np.searchsorted(self.task.positions, positions)]
                    rows += sum(len(set(group)) for group in pairs.T.tolist())
        moved = rows * self.row_bytes + int(passes * self.projected_bytes)
        return Cost(passes, batches, run, operations, moved, spilled, peak, most)


@dataclass(frozen=True)
class Plan:
    """A schedule and its cost.

    Attributes:
        cost: what it takes.
        unique_samples: samples that are run at least once.
        working_bytes: what the largest pass needs beside what is held.
        memory_budget: bytes that were allowed for both.
        block_size: queries that are held at a time.
        checkpoint: whether large passes checkpoint their blocks.
        built: (layers,) whether a layer's gradient is built, or kept as factors.
    """

    cost: Cost
    unique_samples: int
    working_bytes: int
    memory_budget: int
    block_size: int
    alternative: Alternative = field(repr=False, compare=False)

    @property
    def checkpoint(self) -> bool:
        """Whether large passes checkpoint their blocks."""
        return self.alternative.checkpoint

    @property
    def built(self) -> NDArray[np.bool_]:
        """(layers,) whether a layer's gradient is built, or kept as factors."""
        return self.alternative.built

    @property
    def passes(self) -> int:
        """Samples that are run forward and backward, every repetition counted."""
        return self.cost.passes

    @property
    def peak_bytes(self) -> int:
        """Most bytes of captured gradients that are held at once."""
        return self.cost.peak_bytes

    @property
    def operations_with_copies(self) -> float:
        """All operations, and those in the time that copies to the host and back take."""
        return self.cost.operations + self.alternative.per_spilled_byte * self.cost.spilled_bytes

    def steps(self) -> Iterator[Step]:
        """The schedule."""
        return Schedule(self.alternative.task, self.block_size, self.memory_budget - self.working_bytes).steps()


def make_plan(alternatives: Sequence[Alternative], memory_budget: int, operations_per_byte: float) -> Plan:
    """The plan that costs least; among equals an earlier alternative.

    Args:
        alternatives: the same comparison with gradients kept in different forms, the preferred first.
        memory_budget: bytes for captured gradients and the working memory of a pass.
        operations_per_byte: operations in the time that it takes to read a byte.

    Raises:
        MemoryBudgetError: a query and an original that are compared do not fit together.
    """
    best: Plan | None = None
    least = np.inf
    for place, alternative in enumerate(alternatives):
        for plan in _plans(alternative, memory_budget):
            cost = plan.operations_with_copies + operations_per_byte * plan.cost.moved_bytes
            # An earlier one is preferred unless another saves a hundredth.
            if best is None or cost < 0.99 * least:
                best, least = plan, cost
            if plan.passes == plan.unique_samples:
                if place == 0:
                    return best
                break
    if best is None:
        needed = min(least_budget(alternative) for alternative in alternatives)
        raise MemoryBudgetError(
            f"one query and one original need up to {needed:,} bytes, but memory_budget is "
            f"{memory_budget:,}: set memory_budget to at least {needed}"
        )
    return best


def least_budget(alternative: Alternative) -> int:
    """Bytes below which some pair cannot be held and a sample run beside it."""
    query, original = alternative.task.pairs.T
    sizes = alternative.task.sizes
    together = sizes[query] + np.where(query == original, 0, sizes[original])
    return int(together.max(initial=0)) + alternative.working_bytes


def _plans(alternative: Alternative, memory_budget: int) -> Iterator[Plan]:
    """A plan for each block size that fits, the preferred first."""
    room = memory_budget - alternative.working_bytes
    found = False
    for block_size in _block_sizes(alternative.task.n_queries) if room >= 0 else ():
        if found and len(alternative.task.pairs) > _MOST_VISITS * block_size:
            return
        schedule = Schedule(alternative.task, block_size, room)
        if schedule.fits():
            yield Plan(
                cost=alternative.cost(schedule.steps()),
                unique_samples=schedule.unique_samples,
                working_bytes=alternative.working_bytes,
                memory_budget=memory_budget,
                block_size=block_size,
                alternative=alternative,
            )
            found = True


def _block_sizes(n_queries: int) -> list[int]:
    """The usual size, larger ones, then smaller ones, among them what divides the queries into few equal blocks."""
    few_blocks = {-(-n_queries // blocks) for blocks in range(1, 9)}
    sizes = {1 << power for power in range(max(n_queries, 1).bit_length())} | few_blocks | {min(_BLOCK, n_queries)}
    return sorted(sizes - {0}, key=lambda size: (size < _BLOCK and size < n_queries, size if size >= _BLOCK else -size))
