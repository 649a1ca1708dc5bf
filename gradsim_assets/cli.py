"""The `gradsim` command: everything that the web UI does, from a terminal, in the same instance."""

import enum
import sys
from typing import Annotated

import typer
from rich.markup import escape

from gradsim.errors import GradsimError
from gradsim.study.partitions import select_partitions
from gradsim.tables.lineage import COMBINED_TABLES, DOT_TABLES, GRADIENT_TABLES, INDEX, PROJECTED_TABLES, TRANSFER
from gradsim_assets.audits import refuse_wrong_numbers
from gradsim_assets.commands.cluster import WaitOption, examine_cluster
from gradsim_assets.commands.cluster import app as cluster
from gradsim_assets.commands.findings import Findings
from gradsim_assets.commands.publishing import export_command, import_command
from gradsim_assets.commands.session import Session
from gradsim_assets.commands.summary import print_launches, print_results, print_spending, print_status
from gradsim_assets.launch.console import console

app = typer.Typer(
    help="Which training sample did a text come from? Exact gradient similarity studies.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
app.add_typer(cluster, name="cluster")
app.command("import-published")(import_command)
app.command("export-published")(export_command)

StudyName = Annotated[str, typer.Argument(metavar="STUDY", help="A study file's name, without .yaml.")]
SettingOption = Annotated[
    str | None, typer.Option("--setting", help="One setting, such as paraphrased or model-generated; else all.")
]


class Computation(enum.StrEnum):
    """What `run` computes, in the original study's words."""

    DOT_PRODUCT = "dot-product"
    GRADIENT_SIMILARITY = "gradient-similarity"
    RANDOM_PROJECTION = "random-projection"
    ALL = "all"


TABLES = {
    Computation.DOT_PRODUCT: DOT_TABLES,
    Computation.GRADIENT_SIMILARITY: ("gradient_similarity",),
    Computation.RANDOM_PROJECTION: PROJECTED_TABLES,
    Computation.ALL: GRADIENT_TABLES,
}


class Variants(enum.StrEnum):
    """What `prepare` makes."""

    PARAPHRASED = "paraphrased"
    MODEL_GENERATED = "model-generated"
    BOTH = "both"


@app.command()
def run(
    study: StudyName,
    setting: SettingOption = None,
    computation: Annotated[Computation, typer.Option(help="Which gradient tables.")] = Computation.ALL,
    partition: Annotated[
        list[str] | None, typer.Option(help="A partition such as 0000-0099; may be given several times.")
    ] = None,
    partition_start: Annotated[int | None, typer.Option(metavar="A", help="First position.", min=0)] = None,
    partition_end: Annotated[int | None, typer.Option(metavar="B", help="Last position, exclusive.", min=1)] = None,
    num_partitions: Annotated[
        int, typer.Option(metavar="N", help="Compute partitions in N runs, not in one.", min=1)
    ] = 1,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would run, with its batch scripts on a cluster; run nothing.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Compute again what is there and fresh.")] = False,
) -> None:
    """Materialize what is asked for, with what it needs; all of a study, with analysis and report, by default.

    What is there and fresh is not computed again. The exit status is 1 where a step fails, or an audit of the dots.
    """
    session = Session.open(study)
    settings = session.settings(setting)
    if partition or partition_start is not None or partition_end is not None or num_partitions > 1:
        session.refuse_imported()
    partitions = select_partitions(session.study.partitions, partition or (), partition_start, partition_end)
    everything = computation is Computation.ALL and len(partitions) == len(session.study.partitions)
    if not everything:
        session.refuse_imported()
    lineage, key = session.store.lineage, session.store.lineage.key
    targets = [key(table, name) for name in settings for table in TABLES[computation]]
    if everything:
        targets += [key(table, name, "results") for name in settings for table in COMBINED_TABLES]
        targets += [key(analysis, name, "analysis") for name in settings for analysis in lineage.analyses]
        targets.append(key("parameters_per_layer", room="analysis"))
        if len(settings) == len(session.study.settings):
            targets += [key(TRANSFER, room="analysis"), key("report")]
    if computation is Computation.ALL:
        targets.append(key(INDEX))
    targets = [target for target in targets if target in lineage]
    launches = session.plan(targets, partitions, force=force, runs=num_partitions)
    if dry_run:
        print_launches(launches)
        print_spending(session, launches)
        if session.environment.compute == "slurm":
            from gradsim_assets.commands.dry_run import print_scripts  # noqa: PLC0415 - what only a cluster needs

            print_scripts(session, launches, force=force)
        return
    session.check_device(launches)
    session.run(launches, force=force)
    print_results(session)
    refuse_wrong_numbers(session.store, settings)


@app.command()
def combine(study: StudyName, setting: SettingOption = None) -> None:
    """Combine the partitions of each table; only that."""
    session = Session.open(study)
    session.refuse_imported()
    key = session.store.lineage.key
    launches = session.plan(
        [key(table, name, "results") for name in session.settings(setting) for table in COMBINED_TABLES]
    )
    session.refuse_partitions(launches)
    session.run(launches)


@app.command()
def prepare(
    study: StudyName,
    variants: Annotated[Variants, typer.Argument(help="Which queries to make.")],
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be made, sent to an API and paid; do nothing.")
    ] = False,
) -> None:
    """Make the queries of one setting, or of both; only that.

    What an API has answered is kept, and not paid for again, whatever stops this command.
    """
    session = Session.open(study)
    session.refuse_imported()
    names = [Variants.PARAPHRASED, Variants.MODEL_GENERATED] if variants is Variants.BOTH else [variants]
    settings = [setting for name in names for setting in session.settings(name)]
    launches = session.plan([session.store.lineage.key("queries", setting) for setting in settings])
    if dry_run:
        print_launches(launches)
        print_spending(session, launches)
        return
    session.run(launches)


@app.command()
def plan(
    study: StudyName,
    measure: Annotated[
        bool, typer.Option("--measure", help="Time a few samples on this device first, and keep its rates.")
    ] = False,
) -> None:
    """Before anything runs: samples, operations, memory, files, and time where this device was measured.

    Partitions that are missing are counted, or all where none is. Nothing is computed or stored but, with --measure,
    the device's rates.
    """
    from gradsim_assets.commands.plan import print_plan  # noqa: PLC0415 - torch takes seconds to load

    session = Session.open(study)
    session.refuse_imported()
    print_plan(session, measure=measure)


@app.command()
def report(study: StudyName) -> None:
    """Write the HTML report from the computed partitions."""
    session = Session.open(study)
    launches = session.plan([session.store.lineage.key("report")])
    session.refuse_partitions(launches)
    session.run(launches)
    print_results(session)


@app.command()
def query(
    study: StudyName,
    text: Annotated[str, typer.Argument(help="A prompt, as a user would write it.")],
    answer: Annotated[str, typer.Option(help="Its answer: what the gradient is taken of.")],
    top: Annotated[int, typer.Option(help="How many originals are shown.", min=1)] = 5,
) -> None:
    """The originals nearest to a text, by their stored projected gradients.

    Needs a projection with `store_projected: true` in the study, and its `gradient_index`: gradsim run STUDY.
    """
    from gradsim_assets.commands.query import print_nearest  # noqa: PLC0415 - torch takes seconds to load

    session = Session.open(study)
    session.refuse_imported()
    print_nearest(session, text, answer, top)


@app.command()
def status(study: StudyName) -> None:
    """Say how many partitions of each table are done, failed, missing and stale, and what the audits came to."""
    print_status(Session.open(study))


@app.command()
def web(port: Annotated[int, typer.Option(help="Where the web UI listens.", min=1, max=65535)] = 3000) -> None:
    """Open the web UI with all studies, and the daemon that runs backfills."""
    from gradsim_assets.commands.web import serve  # noqa: PLC0415 - not needed by other commands

    raise typer.Exit(serve(port))


@app.command()
def doctor(
    job: Annotated[bool, typer.Option("--job", help="On a cluster, run a short job on a compute node, too.")] = False,
    wait: WaitOption = 300,
) -> None:
    """What is wrong with this installation, its data root and its cluster, and how to mend it.

    The cluster is looked at where jobs run there (GRADSIM_COMPUTE=slurm). The exit status is 1 where something is
    wrong.
    """
    from gradsim_assets.commands.doctor import examine_machine  # noqa: PLC0415 - not needed by other commands

    findings = Findings()
    if examine_machine(findings):
        console.print()
        examine_cluster(findings, job=job, wait=wait)
    if findings.failed:
        raise typer.Exit(1)


def main() -> None:
    """Run a command; an error that the user can mend is one line."""
    try:
        app()
    except GradsimError as error:
        console.print(f"[bold red]error:[/] {escape(str(error))}", soft_wrap=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
