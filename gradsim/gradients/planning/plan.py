"""Choose the cheapest schedule within the memory budget, at costs predicted before the run."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from gradsim.errors import MemoryBudgetError
from gradsim.gradients.planning.schedule import Capture, Compare, Drop, Evict, Restore, Schedule, Spill, Step, Task

Floats = NDArray[np.float64]

# Preferred queries per block: enough to fill batches of similar length, few enough to produce results early.
_BLOCK = 64

# Skip schedules that may need more visits of originals than this if one with larger blocks fits.
_MOST_VISITS = 100_000


@dataclass(frozen=True)
class Cost:
    """Cost of a comparison.

    Attributes:
        passes: samples run forward and backward, counting repetitions.
        batches: batches that these samples run in.
        tokens: tokens run, including padding.
        operations: floating-point operations of passes, gradients and products.
        moved_bytes: bytes of gradients read to compare them, plus bytes read and written by projections.
        spilled_bytes: bytes copied to the host and back.
        peak_bytes: maximum bytes of captured gradients held at once.
        most_held: maximum number of samples held at once.
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
    """Choice of the gradients to build, with the resulting sizes and costs.

    Attributes:
        task: pairs to compare, with the bytes of each node.
        built: (layers,) whether each layer's gradient is built.
        per_token: operations of a pass per token.
        per_pair: operations of a pass per pair of tokens in a sample, spent in attention.
        per_sample: (nodes,) operations to build and project a node's gradients.
        product_operations: operations of all pairs and self dots.
        row_bytes: bytes of a sample's built gradients and projected vectors, read once per group of comparisons.
        working_bytes: bytes that the largest pass needs besides the held gradients.
        checkpoint: whether passes that need more than `working_bytes` checkpoint their blocks.
        per_spilled_byte: operations in the time that copying a byte to the host or back takes.
        by_term: (projections, layers) whether each term is projected as it arrives, instead of the whole gradient.
        projected_bytes: bytes that projecting a sample reads and writes.
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
        """Return the cost of a schedule of the task."""
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
    """Schedule of a comparison and its cost.

    Attributes:
        cost: predicted cost.
        unique_samples: samples that run at least once.
        working_bytes: bytes that the largest pass needs besides the held gradients.
        memory_budget: bytes available for both.
        block_size: queries held at a time.
        alternative: alternative that the schedule carries out.
    """

    cost: Cost
    unique_samples: int
    working_bytes: int
    memory_budget: int
    block_size: int
    alternative: Alternative = field(repr=False, compare=False)

    @property
    def checkpoint(self) -> bool:
        """True if large passes checkpoint their blocks."""
        return self.alternative.checkpoint

    @property
    def built(self) -> NDArray[np.bool_]:
        """Mask of the layers whose gradients are built instead of kept as factors, (layers,)."""
        return self.alternative.built

    @property
    def passes(self) -> int:
        """Samples run forward and backward, counting repetitions."""
        return self.cost.passes

    @property
    def peak_bytes(self) -> int:
        """Maximum bytes of captured gradients held at once."""
        return self.cost.peak_bytes

    @property
    def operations_with_copies(self) -> float:
        """Operations of the plan, including the equivalent of the time spent on copies to the host and back."""
        return self.cost.operations + self.alternative.per_spilled_byte * self.cost.spilled_bytes

    def steps(self) -> Iterator[Step]:
        """Return the steps of the schedule, in order."""
        return Schedule(self.alternative.task, self.block_size, self.memory_budget - self.working_bytes).steps()


def make_plan(alternatives: Sequence[Alternative], memory_budget: int, operations_per_byte: float) -> Plan:
    """Return the cheapest plan; prefer earlier alternatives unless a later one saves at least 1%.

    Args:
        alternatives: ways to store the gradients of one comparison, preferred first.
        memory_budget: bytes for captured gradients and the working memory of a pass.
        operations_per_byte: operations in the time that reading a byte takes.

    Raises:
        MemoryBudgetError: The budget is too small for a query and an original that are compared.
    """
    best: Plan | None = None
    least = np.inf
    for place, alternative in enumerate(alternatives):
        for plan in _plans(alternative, memory_budget):
            cost = plan.operations_with_copies + operations_per_byte * plan.cost.moved_bytes
            # Keep the earlier plan unless this one saves at least 1%.
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
    """Return the smallest budget in bytes that can hold any pair together with the working memory of a pass."""
    query, original = alternative.task.pairs.T
    sizes = alternative.task.sizes
    together = sizes[query] + np.where(query == original, 0, sizes[original])
    return int(together.max(initial=0)) + alternative.working_bytes


def _plans(alternative: Alternative, memory_budget: int) -> Iterator[Plan]:
    """Yield a plan for each block size that fits, preferred sizes first."""
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
    """Return block sizes to try: `_BLOCK` and larger ones ascending, then smaller ones descending.

    Candidates are powers of two and the sizes that split the queries into one to eight equal blocks.
    """
    few_blocks = {-(-n_queries // blocks) for blocks in range(1, 9)}
    sizes = {1 << power for power in range(max(n_queries, 1).bit_length())} | few_blocks | {min(_BLOCK, n_queries)}
    return sorted(sizes - {0}, key=lambda size: (size < _BLOCK and size < n_queries, size if size >= _BLOCK else -size))
