"""States of a study's tables that take all their inputs into account, not only the direct ones."""

from collections.abc import Collection, Mapping, Sequence

from gradsim.tables.keys import State, TableKey
from gradsim.tables.store import Store

States = Mapping[TableKey, Mapping[str | None, State]]
"""Table -> partition, or None for a table without partitions -> state."""


def transitive_states(
    store: Store,
    needed: Mapping[TableKey, Sequence[str | None]] | None = None,
    forced: Collection[tuple[TableKey, str | None]] = (),
) -> States:
    """Return the states of tables, inputs first; what depends on anything that is not fresh is at best stale.

    Args:
        store: The study's tables.
        needed: Partitions to look at by table, with all their inputs; by default those of all tables.
        forced: Tables and partitions that count as stale without a look at their files.
    """
    states: dict[TableKey, dict[str | None, State]] = {}
    for node in store.lineage:
        partitions = store.partitions(node.key) if needed is None else needed.get(node.key, ())
        of_table = states[node.key] = {}
        for each in partitions:
            state = State.STALE if (node.key, each) in forced else store.state(node.key, each)
            inputs = store.inputs(node.key, each) if state is State.FRESH else ()
            fresh = all(states[source][partition] is State.FRESH for source, partition in inputs)
            of_table[each] = state if fresh else State.STALE
    return states
