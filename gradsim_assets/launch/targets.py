"""Planning of a command's runs: the requested tables and their inputs, without those that are fresh."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby

from gradsim.errors import TableError
from gradsim.study.partitions import Partition
from gradsim.tables import Node, State, Store, TableKey
from gradsim.tables.freshness import transitive_states


@dataclass(frozen=True)
class Launch:
    """Assets that one run materializes.

    Attributes:
        keys: Keys of the tables.
        partitions: Consecutive partitions; empty for tables without partitions.
    """

    keys: tuple[TableKey, ...]
    partitions: tuple[str, ...] = ()


def plan_launches(
    store: Store, targets: Iterable[TableKey], partitions: Sequence[Partition], *, force: bool = False, runs: int = 1
) -> list[Launch]:
    """Return the runs that make the targets, in order.

    Args:
        store: The study's tables.
        targets: Requested tables; imported ones are never made.
        partitions: Requested partitions; a combined table needs all partitions of its input in any case.
        force: Whether to make the targets' requested partitions again even if they are fresh.
        runs: Minimum number of runs for each group of consecutive partitions, if it has that many partitions.

    Raises:
        TableError: An imported table is missing, or belongs to another import than the study.
    """
    work = _Work(store, set(targets), [partition.key for partition in partitions], force=force)
    shared = tuple(key for key in work.whole if _is_shared(store.lineage[key]))
    launches = [Launch(shared)] if shared else []
    launches += _partition_launches(store, work.partitioned, runs)
    rest = tuple(key for key in work.whole if key not in set(shared))
    return [*launches, Launch(rest)] if rest else launches


def _is_shared(node: Node) -> bool:
    """Return whether a table depends on no setting, and so is made before the settings' tables."""
    return all(key.setting is None for key in (node.key, *node.inputs))


class _Work:
    """Tables and partitions to make, found in one pass over the lineage, inputs first."""

    def __init__(self, store: Store, targets: set[TableKey], partitions: list[str], *, force: bool) -> None:
        asked = (None, *partitions) if force else ()
        forced = {(key, each) for key in targets for each in asked if not store.lineage[key].imported}
        states = transitive_states(store, _needed(store, targets, partitions), forced)
        self._made: dict[TableKey, list[str | None]] = {}
        for key, of_table in states.items():
            made = [each for each, state in of_table.items() if state is not State.FRESH]
            if made and store.lineage[key].imported:
                raise TableError(f"{store.path(key)}: {of_table[None]}; {store.remedy(key)}")
            if made:
                self._made[key] = made

    @property
    def whole(self) -> list[TableKey]:
        """Tables without partitions, inputs first."""
        return [key for key, partitions in self._made.items() if partitions == [None]]

    @property
    def partitioned(self) -> dict[str, tuple[TableKey, ...]]:
        """Tables to make by partition, of all settings and of the study itself, inputs first."""
        tables: dict[str, list[TableKey]] = {}
        for key, partitions in self._made.items():
            for partition in partitions:
                if partition is not None:
                    tables.setdefault(partition, []).append(key)
        return {partition: tuple(tables[partition]) for partition in sorted(tables)}


def _needed(store: Store, targets: set[TableKey], partitions: list[str]) -> dict[TableKey, list[str | None]]:
    """Return the needed partitions of the targets and all their inputs, by table."""
    needed: dict[TableKey, set[str | None]] = {}
    for node in reversed(list(store.lineage)):
        if node.key in targets:
            needed.setdefault(node.key, set()).update(partitions if node.partitioned else [None])
        for source in node.inputs if node.key in needed else ():
            if not store.lineage[source].partitioned:
                wanted: set[str | None] = {None}
            elif node.partitioned:
                wanted = needed[node.key]
            else:
                wanted = set(store.partitions(source))
            needed.setdefault(source, set()).update(wanted)
    return {key: sorted(wanted, key=str) for key, wanted in needed.items()}


def _partition_launches(store: Store, work: dict[str, tuple[TableKey, ...]], runs: int) -> list[Launch]:
    """Return launches for consecutive partitions that need the same tables, split into up to `runs` launches each."""
    order = {partition.key: position for position, partition in enumerate(store.study.partitions)}
    indexed = [(order[partition] - index, tables, partition) for index, (partition, tables) in enumerate(work.items())]
    launches = []
    for (_, tables), group in groupby(indexed, key=lambda item: item[:2]):
        partitions = [partition for _, _, partition in group]
        size = -(-len(partitions) // runs)
        launches += [
            Launch(tables, tuple(partitions[start : start + size])) for start in range(0, len(partitions), size)
        ]
    return launches


def describe(launch: Launch) -> str:
    """Return, for example, `sample/paraphrased: queries, tokenized, candidates (0000-0019 to 0040-0059)`."""
    places = {"/".join(key.parts[:-1]) for key in launch.keys}
    names = [key.name if len(places) == 1 else str(key) for key in launch.keys]
    settings = list(dict.fromkeys(key.setting for key in launch.keys if key.setting))
    counted = f"{len(names)} tables" + (f" of {', '.join(settings)}" if len(places) > 1 and settings else "")
    listed = ", ".join(names) if len(names) <= LISTED else counted
    text = f"{places.pop()}: {listed}" if len(places) == 1 else listed
    if not launch.partitions:
        return text
    first, last = launch.partitions[0], launch.partitions[-1]
    return f"{text} ({first})" if first == last else f"{text} ({first} to {last})"


# Longer lists of tables are abbreviated to their number.
LISTED = 7
