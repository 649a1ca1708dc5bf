"""Summaries in the terminal: planned runs, their cost, and results."""

from collections.abc import Sequence
from functools import partial

import polars as pl
from rich import box
from rich.markup import escape
from rich.table import Table

from gradsim.plots.labels import control_label, method_label
from gradsim.tables import State, Store
from gradsim.tables.freshness import transitive_states
from gradsim_assets.commands.session import Session
from gradsim_assets.commands.spending import launched_queries, spending
from gradsim_assets.commands.status import print_audits
from gradsim_assets.launch.targets import Launch, describe
from gradsim_assets.terminal import console, heading, print_in_parts


def print_launches(launches: Sequence[Launch]) -> None:
    """Print the runs that would happen, in order."""
    if not launches:
        console.print("nothing to do: everything requested is fresh")
    for number, launch in enumerate(launches, start=1):
        console.print(f"[bold]run {number} of {len(launches)}[/]  {describe(launch)}")
        for key in launch.keys:
            console.print(f"  {key}")


def print_spending(session: Session, launches: Sequence[Launch]) -> None:
    """Print what these launches would send to an API, and the cost."""
    for line in spending(session, launched_queries(launches)):
        console.print(escape(line), soft_wrap=True)


def print_results(session: Session) -> None:
    """Print the headline numbers and audit verdicts of all analysed settings, and the path of the report.

    Results that lack what a later run of some partitions computed are marked as stale.
    """
    store, key = session.store, session.store.lineage.key
    states = transitive_states(store)
    headlines = {
        name: [key(table, name, "analysis") for table in ("accuracy", "controls")] for name in session.study.settings
    }
    analysed = [name for name, keys in headlines.items() if all(store.state(each) is State.FRESH for each in keys)]
    stale = [name for name in analysed if any(states[each][None] is not State.FRESH for each in headlines[name])]
    if analysed:
        print_in_parts(partial(_accuracies, store, stale), analysed)
        print_audits(store, states)
    report = states[key("report")][None]
    if report in {State.FRESH, State.STALE}:
        mark = " (stale)" * (report is State.STALE)
        console.print(f"report{mark}: [bold]{escape(str(store.path(key('report'))))}[/]", soft_wrap=True)
    if stale or report is State.STALE:
        console.print(f"to bring stale results up to date: [bold]gradsim run {session.study.name}[/]", soft_wrap=True)


def _accuracies(store: Store, stale: Sequence[str], settings: Sequence[str]) -> Table:
    """Return the share of queries whose source is found, with a row per method or control and a column per setting."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    table.add_column("sources found (%)", no_wrap=True)
    methods: dict[str, dict[str, str]] = {}
    nulls: dict[str, dict[str, str]] = {}
    for setting in settings:
        table.add_column(
            heading(setting) + "\n[yellow](stale)[/]" * (setting in stale), justify="right", overflow="fold"
        )
        accuracy = store.read(store.lineage.key("accuracy", setting, "analysis"))
        controls = store.read(store.lineage.key("controls", setting, "analysis"))
        rows = accuracy.filter(pl.col("group") == "all").iter_rows(named=True)
        for row in rows:
            methods.setdefault(method_label(row["method"]), {})[setting] = _share(row)
        for row in controls.iter_rows(named=True):
            nulls.setdefault(control_label(row["control"]), {})[setting] = _share(row)
    for cells in (methods, nulls):
        for name, shares in cells.items():
            table.add_row(name, *(shares.get(setting, "") for setting in settings))
        table.add_section()
    return table


def _share(row: dict[str, float]) -> str:
    share = f"{100 * row['accuracy']:.1f}"
    return share if row["low"] is None else f"{share} [dim]({100 * row['low']:.0f}–{100 * row['high']:.0f})[/]"
