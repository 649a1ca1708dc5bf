"""Partitions: ranges of query positions in the loaded dataset, before any exclusion."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from gradsim.errors import StudyError


@dataclass(frozen=True, slots=True)
class Partition:
    """Positions from `start` to `end`, end exclusive.

    Attributes:
        start: first position.
        end: position after the last one.
        digits: minimum number of digits of positions in the key.
    """

    start: int
    end: int
    digits: int = 4

    @property
    def key(self) -> str:
        """First and last position, both inclusive: `0000-0099`."""
        return f"{self.start:0{self.digits}d}-{self.end - 1:0{self.digits}d}"


def partition_ranges(size: int, partition_size: int) -> tuple[Partition, ...]:
    """Divide `size` positions into partitions of at most `partition_size`."""
    digits = max(4, len(str(size - 1)))
    return tuple(
        Partition(start, min(start + partition_size, size), digits) for start in range(0, size, partition_size)
    )


def select_partitions(
    partitions: Sequence[Partition],
    keys: Iterable[str] = (),
    start: int | None = None,
    end: int | None = None,
) -> tuple[Partition, ...]:
    """Return the partitions selected by key or by a range of positions, end exclusive; by default all.

    Raises:
        StudyError: a partition does not exist, the range does not match partition borders, or both selections are used.
    """
    keys = list(keys)
    if keys and (start is not None or end is not None):
        raise StudyError("--partition cannot be combined with --partition-start/--partition-end; use one of them")
    if keys:
        by_key = {partition.key: partition for partition in partitions}
        for key in keys:
            if key not in by_key:
                raise StudyError(
                    f"no partition {key!r}: there are {len(partitions)}, "
                    f"{partitions[0].key} to {partitions[-1].key}; choose one of those"
                )
        return tuple(partition for partition in partitions if partition.key in set(keys))
    first = 0 if start is None else start
    last = partitions[-1].end if end is None else end
    if first not in {p.start for p in partitions} or last not in {p.end for p in partitions} or first >= last:
        borders = ", ".join(str(partition.start) for partition in partitions)
        raise StudyError(
            f"no partitions from {first} to {last} (end exclusive): "
            f"choose among the borders {borders}, {partitions[-1].end}"
        )
    return tuple(p for p in partitions if first <= p.start and p.end <= last)
