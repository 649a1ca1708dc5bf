"""Choosing the schedule: the fewest passes that the memory budget allows, predicted exactly."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from math import isqrt

import numpy as np
from numpy.typing import NDArray

from gradsim.errors import GradientError
from gradsim.gradients.schedule import Schedule, Step, Task

Forms = NDArray[np.bool_]
"""(nodes, layers): whether a sample's gradient of a layer is built, or kept as factors."""


@dataclass(frozen=True)
class Plan:
    """A schedule and its cost.

    Attributes:
        passes: forward and backward passes, every repetition counted.
        unique_samples: samples that are run at least once.
        peak_bytes: most bytes of captured gradients that are held at once.
        memory_budget: bytes that were allowed.
        block_size: queries that are held at a time.
    """

    passes: int
    unique_samples: int
    peak_bytes: int
    memory_budget: int
    block_size: int
    task: Task = field(repr=False, compare=False)
    forms: Forms = field(repr=False, compare=False)

    def steps(self) -> Iterator[Step]:
        """The schedule."""
        return Schedule(self.task, self.block_size, self.memory_budget).steps()


def make_plan(ways: Sequence[tuple[Task, Forms]], memory_budget: int) -> Plan:
    """The plan with the fewest passes; among equals an earlier way, then the one that holds least.

    Args:
        ways: the same comparison with gradients kept in different forms, the preferred first.
        memory_budget: bytes of captured gradients that may be held at once.

    Raises:
        GradientError: a query and an original that are compared do not fit together.
    """
    plans: list[Plan] = []
    for task, forms in ways:
        plans += _plans(task, forms, memory_budget)
        best = min(plans, key=lambda plan: plan.passes, default=None)
        if best and best.passes == best.unique_samples:
            return best
    if best is None:
        least = min(least_budget(task) for task, _ in ways)
        raise GradientError(
            f"one query and one original need up to {least:,} bytes, but memory_budget is "
            f"{memory_budget:,}: set memory_budget to at least {least}"
        )
    return best


def least_budget(task: Task) -> int:
    """Bytes below which some pair cannot be held."""
    query, original = task.pairs.T
    together = task.sizes[query] + np.where(query == original, 0, task.sizes[original])
    return int(together.max(initial=0))


def _plans(task: Task, forms: Forms, memory_budget: int) -> list[Plan]:
    """A plan for each block size that fits, the ones that hold least first."""
    plans = []
    for block_size in _block_sizes(task.n_queries):
        schedule = Schedule(task, block_size, memory_budget)
        if schedule.fits():
            passes, peak = schedule.cost()
            plans.append(
                Plan(
                    passes=passes,
                    unique_samples=schedule.unique_samples,
                    peak_bytes=peak,
                    memory_budget=memory_budget,
                    block_size=block_size,
                    task=task,
                    forms=forms,
                )
            )
    return sorted(plans, key=lambda plan: plan.peak_bytes)


def _block_sizes(n_queries: int) -> list[int]:
    """1, 2, 4, ..., and what divides the queries into few equal blocks."""
    powers = {1 << power for power in range(n_queries.bit_length())}
    few_blocks = {-(-n_queries // blocks) for blocks in range(1, isqrt(n_queries) + 1)}
    return sorted(powers | few_blocks)
