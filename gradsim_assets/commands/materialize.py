"""Commands that materialize tables: `run`, `combine`, `prepare` and `report`."""

from collections.abc import Mapping, Sequence

from gradsim.analysis.questions import SIZES
from gradsim.study.partitions import select_partitions
from gradsim.tables import TableKey
from gradsim.tables.lineage import COMBINED_TABLES, DOT_TABLES, GRADIENT_TABLES, INDEX, PROJECTED_TABLES, TRANSFER
from gradsim_assets import commands
from gradsim_assets.commands.session import Session
from gradsim_assets.commands.status import refuse_wrong_numbers
from gradsim_assets.commands.summary import print_launches, print_results, print_spending

# What `run --computation` computes, in the original study's words.
TABLES: Mapping[str, Sequence[str]] = {
    "dot-product": DOT_TABLES,
    "gradient-similarity": ("gradient_similarity",),
    "random-projection": PROJECTED_TABLES,
    "all": GRADIENT_TABLES,
}


def run(
    name: str,
    *,
    setting: str | None = None,
    computation: str = "all",
    partitions: Sequence[str] = (),
    start: int | None = None,
    end: int | None = None,
    runs: int = 1,
    dry_run: bool = False,
    force: bool = False,
) -> None:
    """Materialize tables of a study, with their inputs.

    Raises:
        GradsimError: The request is invalid, a run failed, or an audit found wrong numbers.
    """
    session = Session.open(name)
    settings = session.settings(setting)
    if partitions or start is not None or end is not None or runs > 1:
        session.refuse_imported()
    selected = select_partitions(session.study.partitions, partitions, start, end)
    everything = computation == "all" and len(selected) == len(session.study.partitions)
    if not everything:
        session.refuse_imported()
    targets = _targets(session, settings, computation, everything=everything)
    launches = session.plan(targets, selected, force=force, runs=runs)
    if dry_run:
        print_launches(launches)
        print_spending(session, launches)
        if session.environment.compute == "slurm":
            commands.print_scripts(session, launches, force=force)
        return
    session.check_device(launches)
    session.run(launches, force=force)
    print_results(session)
    refuse_wrong_numbers(session.store, settings)


def _targets(session: Session, settings: Sequence[str], computation: str, *, everything: bool) -> list[TableKey]:
    """Return the tables of a computation; with `everything`, combined tables, analyses and the report as well."""
    lineage, key = session.store.lineage, session.store.lineage.key
    targets = [key(table, name) for name in settings for table in TABLES[computation]]
    if everything:
        targets += [key(table, name, "results") for name in settings for table in COMBINED_TABLES]
        targets += [key(analysis, name, "analysis") for name in settings for analysis in lineage.analyses]
        targets.append(key(SIZES, room="analysis"))
        if len(settings) == len(session.study.settings):
            targets += [key(TRANSFER, room="analysis"), key("report")]
    if computation == "all":
        targets.append(key(INDEX))
    return [target for target in targets if target in lineage]


def combine(name: str, setting: str | None = None) -> None:
    """Combine the partitions of each table.

    Raises:
        GradsimError: Partitions are missing, or a run failed.
    """
    session = Session.open(name)
    session.refuse_imported()
    key = session.store.lineage.key
    launches = session.plan(
        [key(table, setting, "results") for setting in session.settings(setting) for table in COMBINED_TABLES]
    )
    session.refuse_partitions(launches)
    session.run(launches)


def prepare(name: str, variants: Sequence[str], *, dry_run: bool = False) -> None:
    """Make the queries of settings.

    Raises:
        GradsimError: There is no such setting, or a run failed.
    """
    session = Session.open(name)
    session.refuse_imported()
    settings = [setting for variant in variants for setting in session.settings(variant)]
    launches = session.plan([session.store.lineage.key("queries", setting) for setting in settings])
    if dry_run:
        print_launches(launches)
        print_spending(session, launches)
        return
    session.run(launches)


def report(name: str) -> None:
    """Write the HTML report from the computed partitions.

    Raises:
        GradsimError: Partitions are missing, or a run failed.
    """
    session = Session.open(name)
    launches = session.plan([session.store.lineage.key("report")])
    session.refuse_partitions(launches)
    session.run(launches)
    print_results(session)
