"""The command `status`: the states of the tables, and the results of the audits.

A failed audit fails the command that made it, so that wrong numbers cannot go unnoticed.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from math import isfinite

from rich import box
from rich.markup import escape
from rich.table import Table

from gradsim.analysis import Verdict, audit_verdict
from gradsim.errors import GradsimError
from gradsim.tables import State, Store, TableKey
from gradsim.tables.freshness import States, transitive_states
from gradsim.tables.lineage import AUDIT
from gradsim_assets.commands.session import Session
from gradsim_assets.terminal import console


class AuditError(GradsimError):
    """Error raised if stored numbers differ from plain autograd."""


def audit_verdicts(store: Store, settings: Sequence[str]) -> dict[str, Verdict]:
    """Return the verdicts of these settings, for audits that belong to the combined tables stored now."""
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


@dataclass(frozen=True)
class FileState:
    """The state of a table without partitions, or of a partition: done, failed, missing, stale or corrupt."""

    key: TableKey
    partition: str | None
    state: str


def print_status(session: Session, *, tables: bool = False) -> None:
    """Print how many files are done, failed, missing and stale, the damaged ones, the audits, and what to run next.

    Args:
        session: The study.
        tables: Whether each table has a line, not only each setting.
    """
    store = session.store
    states = transitive_states(store)
    files = _file_states(session, states)
    console.print(f"{session.study.name} in [bold]{escape(str(store.root))}[/]", soft_wrap=True)
    console.print(_table_of_tables(files) if tables else _table_of_settings(files))
    for each in files:
        if each.state == State.CORRUPT:
            path = escape(str(store.damaged_file(each.key, each.partition)))
            console.print(f"[red]corrupt:[/] {path}; the next run computes it again", soft_wrap=True)
    print_audits(store, states)
    if following := _following(session, files):
        console.print(f"next: [bold]{escape(following)}[/]", soft_wrap=True)


def print_states(session: Session) -> None:
    """Print the states of all files, the audits and what to run next as JSON."""
    store = session.store
    states = transitive_states(store)
    files = _file_states(session, states)
    stale = stale_audits(store, states)
    report = {
        "study": session.study.name,
        "root": str(store.root),
        "tables": [
            {"table": str(each.key), "setting": each.key.setting, "partition": each.partition, "state": each.state}
            for each in files
        ],
        "audits": {
            setting: {
                "passed": verdict.passed,
                "stale": setting in stale,
                "numbers": verdict.numbers,
                "worst": verdict.worst if isfinite(verdict.worst) else None,  # JSON has no NaN
            }
            for setting, verdict in audit_verdicts(store, list(session.study.settings)).items()
        },
        "next": _following(session, files),
    }
    console.print_json(data=report, highlight=False)


def _file_states(session: Session, states: States) -> list[FileState]:
    """Return the states of all files, inputs first."""
    # Fresh partitions did not fail, and asking Dagster takes seconds.
    lineage = session.store.lineage
    unfinished = [key for key in states if lineage[key].partitioned and {*states[key].values()} != {State.FRESH}]
    failed = session.failed_partitions(unfinished)

    def word(key: TableKey, partition: str | None, state: State) -> str:
        if state is State.FRESH:
            return "done"
        return "failed" if state is not State.CORRUPT and (key, partition) in failed else state.value

    return [
        FileState(key, partition, word(key, partition, state))
        for key, of_table in states.items()
        for partition, state in of_table.items()
    ]


def _following(session: Session, files: Sequence[FileState]) -> str | None:
    """Return what to run next; None: everything is done."""
    store, name = session.store, session.study.name
    unfinished = [each for each in files if each.state != "done"]
    if not unfinished:
        return None
    if lost := [each.key for each in unfinished if store.lineage[each.key].imported]:
        return store.remedy(lost[0])
    return f"gradsim run {name}"


def _table_of_settings(files: Sequence[FileState]) -> Table:
    """Return the counts with a line for the study's own tables, one for each setting, and one for the report."""
    counts: dict[str, list[FileState]] = {}
    for each in files:
        own = "report" if each.key.name == "report" else "shared tables"
        counts.setdefault(f"[bold]{each.key.setting}[/]" if each.key.setting else own, []).append(each)
    table = _empty_table("tables and partitions")
    for name in sorted(counts, key="report".__eq__):  # the report is last, though tables of the study follow settings
        table.add_row(name, *_cells(counts[name]))
    return table


def _table_of_tables(files: Sequence[FileState]) -> Table:
    """Return the counts with a line for each table, below its setting."""
    table = _empty_table("table")
    for setting, of_setting in groupby(files, key=lambda each: each.key.setting):
        if setting:
            table.add_section()
            table.add_row(f"[bold]{setting}[/]")
        for key, of_table in groupby(of_setting, key=lambda each: each.key):
            name = "/".join(part for part in (key.room, key.name) if part)
            table.add_row(f"  {name}" if setting else name, *_cells(list(of_table)))
        table.add_section()
    return table


def _empty_table(title: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column(title, overflow="fold")
    for column in ("done", "failed", "missing", "stale"):
        table.add_column(column, justify="right", no_wrap=True)
    return table


def _cells(files: Sequence[FileState]) -> list[str]:
    """Return the cells for the numbers of done, failed, missing and stale files."""
    counts = Counter("failed" if each.state == State.CORRUPT else each.state for each in files)
    colours = {"done": "green", "failed": "red", "missing": "yellow", "stale": "yellow"}
    return [f"[{colour}]{counts[name]:,}[/]" if counts[name] else "[dim]·[/]" for name, colour in colours.items()]


def stale_audits(store: Store, states: States) -> set[str]:
    """Return the settings whose stored audit was made from other numbers than those stored or to be made."""
    keys = {setting: store.lineage.key(AUDIT, setting, "analysis") for setting in store.study.settings}
    return {setting for setting, key in keys.items() if key in states and states[key][None] is not State.FRESH}


def print_audits(store: Store, states: States) -> None:
    """Print the verdicts of all audits that can be read; mark those that are stale."""
    stale = stale_audits(store, states)
    for setting, verdict in audit_verdicts(store, list(store.study.settings)).items():
        name = f"{setting} (stale)" if setting in stale else setting
        if verdict.passed:
            agreement = f"{verdict.numbers:,} numbers agree with plain autograd to within {verdict.worst:.2g}"
            console.print(f"{name}: {agreement}", soft_wrap=True)
        else:
            console.print(f"[bold red]{name}:[/] {escape(str(verdict))}", soft_wrap=True)
