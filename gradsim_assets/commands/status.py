"""The command `status`: the state of each table, and the results of the audits."""

from collections import Counter
from collections.abc import Collection, Sequence
from itertools import groupby

from rich import box
from rich.markup import escape
from rich.table import Table

from gradsim.tables import State, Store, TableKey
from gradsim_assets.audits import audit_verdicts
from gradsim_assets.commands.session import Session
from gradsim_assets.terminal import console


def print_status(session: Session) -> None:
    """Print how many partitions of each table are done, failed, missing and stale, and the audit verdicts."""
    store = session.store
    table = Table(title=f"{session.study.name} in {store.root}", title_justify="left", box=box.SIMPLE_HEAD)
    table.add_column("table", overflow="fold")
    for column in ("done", "failed", "missing", "stale"):
        table.add_column(column, justify="right", no_wrap=True)
    failed = session.failed_partitions()
    for setting, nodes in groupby(store.lineage, key=lambda node: node.key.setting):
        if setting:
            table.add_section()
            table.add_row(f"[bold]{setting}[/]")
        for node in nodes:
            name = "/".join(part for part in (node.key.room, node.key.name) if part)
            table.add_row(f"  {name}" if setting else name, *_state_cells(store, node.key, failed))
        table.add_section()
    console.print(table)
    print_audits(store, list(session.study.settings))


def _state_cells(store: Store, key: TableKey, failed: Collection[tuple[TableKey, str | None]]) -> list[str]:
    """Return the cells for a table's numbers of done, failed, missing and stale partitions."""
    counts: Counter[str] = Counter()
    for partition in store.partitions(key):
        state = store.state(key, partition)
        lost = state is State.CORRUPT or (state is not State.FRESH and (key, partition) in failed)
        counts["failed" if lost else state.value] += 1
    numbers = [counts[name] for name in ("fresh", "failed", "missing", "stale")]
    colours = ("green", "red", "yellow", "yellow")
    return [f"[{colour}]{n}[/]" if n else "[dim]·[/]" for n, colour in zip(numbers, colours, strict=True)]


def print_audits(store: Store, settings: Sequence[str]) -> None:
    """Print the verdicts of these settings' audits, for audits that exist and are fresh."""
    for setting, verdict in audit_verdicts(store, settings).items():
        if verdict.passed:
            agreement = f"{verdict.numbers} numbers agree with plain autograd to within {verdict.worst:.2g}"
            console.print(f"{setting}: {agreement}")
        else:
            console.print(f"[bold red]{setting}:[/] {escape(str(verdict))}", soft_wrap=True)
