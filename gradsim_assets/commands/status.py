"""The command `status`: the state of each table, and the results of the audits.

A failed audit fails the command that made it, so that wrong numbers cannot go unnoticed.
"""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from itertools import groupby

from rich import box
from rich.markup import escape
from rich.table import Table

from gradsim.analysis import Verdict, audit_verdict
from gradsim.errors import GradsimError
from gradsim.tables import State, Store, TableKey
from gradsim.tables.lineage import AUDIT
from gradsim_assets.commands.session import Session
from gradsim_assets.terminal import console


class AuditError(GradsimError):
    """Error raised if stored numbers differ from plain autograd."""


def audit_verdicts(store: Store, settings: Sequence[str]) -> dict[str, Verdict]:
    """Return the verdicts of these settings, for audits that exist and are fresh."""
    keys = {setting: store.lineage.key(AUDIT, setting, "analysis") for setting in settings}
    return {
        setting: audit_verdict(store.read(key), store.study.model.precision)
        for setting, key in keys.items()
        if key in store.lineage and store.state(key) is State.FRESH
    }


def refuse_wrong_numbers(store: Store, settings: Sequence[str]) -> None:
    """Raise for the first of these settings with a failed audit.

    Raises:
        AuditError: A setting's audit failed. The message names the worst number and the next steps.
    """
    for setting, verdict in audit_verdicts(store, settings).items():
        if not verdict.passed:
            study = store.study.name
            raise AuditError(
                f"the audit of {study}/{setting} failed: {verdict}. Do not rely on this setting's numbers; recompute "
                f"them (gradsim run {study} --setting {setting} --force), and report the model if it fails again"
            )


def print_status(session: Session) -> None:
    """Print how many partitions of each table are done, failed, missing and stale, and the audit verdicts."""
    store = session.store
    states = {
        node.key: {partition: store.state(node.key, partition) for partition in store.partitions(node.key)}
        for node in store.lineage
    }
    # Fresh partitions did not fail, and asking Dagster takes seconds.
    unfinished = [key for key in states if store.lineage[key].partitioned and {*states[key].values()} != {State.FRESH}]
    failed = session.failed_partitions(unfinished)
    table = Table(title=f"{session.study.name} in {store.root}", title_justify="left", box=box.SIMPLE_HEAD)
    table.add_column("table", overflow="fold")
    for column in ("done", "failed", "missing", "stale"):
        table.add_column(column, justify="right", no_wrap=True)
    for setting, keys in groupby(states, key=lambda key: key.setting):
        if setting:
            table.add_section()
            table.add_row(f"[bold]{setting}[/]")
        for key in keys:
            name = "/".join(part for part in (key.room, key.name) if part)
            table.add_row(f"  {name}" if setting else name, *_cells(key, states[key], failed))
        table.add_section()
    console.print(table)
    for key, of_table in states.items():
        for partition in (each for each, state in of_table.items() if state is State.CORRUPT):
            path = escape(str(store.damaged_file(key, partition)))
            console.print(f"[red]corrupt:[/] {path}; the next run computes it again", soft_wrap=True)
    print_audits(store, list(session.study.settings))


def _cells(
    key: TableKey, states: Mapping[str | None, State], failed: Collection[tuple[TableKey, str | None]]
) -> list[str]:
    """Return the cells for a table's numbers of done, failed, missing and stale partitions."""
    counts: Counter[str] = Counter()
    for partition, state in states.items():
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
