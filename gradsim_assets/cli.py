"""The `gradsim` command: everything that the web UI does, from a terminal, in the same instance.

This module only parses: `gradsim_assets.commands` loads when a command runs.
"""

import sys
import tempfile
import traceback
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.markup import escape

from gradsim.environment import read_environment
from gradsim.errors import GradsimError, first_line
from gradsim_assets import commands
from gradsim_assets.terminal import console
from resources.full_disks import disk_error

app = typer.Typer(
    help="Which training sample did a text come from? Exact gradient similarity studies.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
cluster = typer.Typer(help="The Slurm cluster of .env (SLURM_...): check it, prepare it.", no_args_is_help=True)
app.add_typer(cluster, name="cluster")

StudyName = Annotated[str, typer.Argument(metavar="STUDY", help="A study file's name, without .yaml.")]
SettingOption = Annotated[
    str | None, typer.Option("--setting", help="One setting, such as paraphrased or model-generated; else all.")
]
WaitOption = Annotated[
    float, typer.Option("--wait", metavar="SECONDS", help="How long the job may wait in the queue.", min=0)
]
Computation = Literal["dot-product", "gradient-similarity", "random-projection", "all"]
Variants = Literal["paraphrased", "model-generated", "both"]


@app.command()
def init(
    name: Annotated[str, typer.Argument(metavar="NAME", help="What to call the study.")],
    data: Annotated[Path, typer.Option(metavar="FILE", help="The samples: a file, or a folder that datasets saved.")],
    model: Annotated[str, typer.Option(metavar="NAME", help="A model of the Hugging Face Hub, or its folder.")],
) -> None:
    """Write a commented study file for your data and model, which runs as it is.

    Reads the data first, to name their format and count the samples. Never replaces a file.
    """
    commands.write_study(name, data, model)


@app.command("list")
def list_studies() -> None:
    """List all studies with their settings, how far they are, and the errors of those that are not valid.

    Looks for files without reading them all; `gradsim status` verifies each of them.
    """
    commands.print_studies()


@app.command()
def run(
    study: StudyName,
    setting: SettingOption = None,
    computation: Annotated[Computation, typer.Option(help="Which gradient tables.")] = "all",
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
    """Materialize what is asked for, with its inputs; by default everything of a study, analysis and report included.

    Fresh tables are not computed again. The exit status is 1 if a step or an audit of the dots fails.
    """
    commands.run(
        study,
        setting=setting,
        computation=computation,
        partitions=partition or (),
        start=partition_start,
        end=partition_end,
        runs=num_partitions,
        dry_run=dry_run,
        force=force,
    )


@app.command()
def combine(study: StudyName, setting: SettingOption = None) -> None:
    """Combine the partitions of each table; only that."""
    commands.combine(study, setting)


@app.command()
def prepare(
    study: StudyName,
    variants: Annotated[Variants, typer.Argument(help="Which queries to make.")],
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be made, sent to an API and paid; do nothing.")
    ] = False,
) -> None:
    """Make the queries of one setting, or of both; only that.

    Answers of an API are kept and never paid for twice, even if this command is interrupted.
    """
    commands.prepare(study, ["paraphrased", "model-generated"] if variants == "both" else [variants], dry_run=dry_run)


@app.command()
def plan(
    study: StudyName,
    measure: Annotated[
        bool, typer.Option("--measure", help="Time a few samples on this device first, and keep its rates.")
    ] = False,
) -> None:
    """Show samples, operations, memory and files before anything runs, and the time if this device was measured.

    Counts the missing partitions, or all if none is missing. Stores nothing but, with --measure, the device's rates.
    """
    session = commands.Session.open(study)
    session.refuse_imported()
    commands.print_plan(session, measure=measure)


@app.command()
def report(study: StudyName) -> None:
    """Write the HTML report from the computed partitions."""
    commands.report(study)


@app.command()
def query(
    study: StudyName,
    text: Annotated[
        str | None,
        typer.Argument(metavar="TEXT", help="A prompt, as a user would write it, or a text if the originals are."),
    ] = None,
    answer: Annotated[str | None, typer.Option(help="The prompt's answer: what the gradient is taken of.")] = None,
    file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Many texts: samples in any format of a dataset.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option(metavar="FILE", help="With --file: a Parquet file for the originals of each text.")
    ] = None,
    top: Annotated[int, typer.Option(help="How many originals of each text.", min=1)] = 5,
    exact: Annotated[bool, typer.Option("--exact", help="Rank them by their full gradients: a pass of each.")] = False,
) -> None:
    """Find the originals nearest to a text or to many, by their stored projected gradients.

    Needs a projection with `store_projected: true` in the study, and its `gradient_index`: gradsim run STUDY.
    """
    session = commands.Session.open(study)
    session.refuse_imported()
    commands.query(session, text, answer, file=file, output=output, top=top, exact=exact)


@app.command()
def status(
    study: StudyName,
    all_tables: Annotated[
        bool, typer.Option("--all", help="A line for each table, not only for each setting.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="The state of every table and partition, as JSON.")] = False,
) -> None:
    """Count what is done, failed, missing and stale; show damaged files, audits, and what to run next.

    Whatever depends on missing or stale tables is stale, too.
    """
    session = commands.Session.open(study)
    if as_json:
        commands.print_states(session)
    else:
        commands.print_status(session, tables=all_tables)


@app.command()
def web(
    port: Annotated[int, typer.Option(help="Where the web UI listens.", min=1, max=65535)] = 3000,
    socket: Annotated[
        Path | None,
        typer.Option(metavar="PATH", help="Listen on this Unix socket, which only you can open, not on a port."),
    ] = None,
    host_name: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="The web UI's name behind a reverse proxy; may be given several times."),
    ] = None,
) -> None:
    """Open the web UI with all studies, and the daemon that runs backfills."""
    raise typer.Exit(commands.serve(port, socket, host_name or ()))


@app.command()
def doctor(
    job: Annotated[bool, typer.Option("--job", help="On a cluster, run a short job on a compute node, too.")] = False,
    wait: WaitOption = 300,
) -> None:
    """Find what is wrong with this installation, its data root and its cluster, and say how to fix it.

    The cluster is checked if jobs run there (GRADSIM_COMPUTE=slurm). The exit status is 1 if something is wrong.
    """
    if not commands.examine_installation(job=job, wait=wait):
        raise typer.Exit(1)


@app.command("import-published")
def import_published(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The folder that holds dot_products/, or its parent.")],
    study: Annotated[str, typer.Option("--study", metavar="NAME", help="What to call it here.")],
    model: Annotated[str | None, typer.Option(help="The model, where the folder has several.")] = None,
    sample_size: Annotated[str | None, typer.Option(help="full or N, where the folder has several.")] = None,
    setting: Annotated[list[str] | None, typer.Option(help="Only this setting; may be given several times.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an earlier import of this name.")] = False,
) -> None:
    """Read the original study's JSON results as a study without a model.

    Dot products may be whole or in _part_A_B files. Missing, malformed or contradictory files are refused by name;
    whatever was resolved is listed. `gradsim run NAME` then makes the analyses and the report.
    """
    commands.import_study(folder, study, model=model, sample_size=sample_size, settings=setting or None, force=force)


@app.command("export-published")
def export_published(
    study: Annotated[str, typer.Argument(metavar="STUDY", help="A study whose combined tables are there.")],
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="An empty folder; gets data/ and results/.")],
) -> None:
    """Write a study's combined tables as the original study's JSON files, byte for byte in its layout."""
    commands.export_study(study, folder)


@cluster.command()
def check(
    job: Annotated[bool, typer.Option(help="Run a short job on a compute node, too.")] = True, wait: WaitOption = 300
) -> None:
    """Check the cluster, from the settings to a short job on a compute node.

    Says what is wrong and how to fix it. The exit status is 1 if something is wrong; nothing is left on the cluster.
    """
    if not commands.check_cluster(job=job, wait=wait):
        raise typer.Exit(1)


@cluster.command()
def install() -> None:
    """Install this code and its dependencies into an environment of its own on the cluster.

    Each version of the code has its environment, so that running jobs keep theirs; an existing one is left alone.
    Python is SLURM_PYTHON (3.11 or 3.12). SLURM_SETUP runs first, where PIP_... variables can point pip to a mirror.
    """
    if not commands.install_on_cluster():
        raise typer.Exit(1)


def main() -> None:
    """Run a command; print any error as one line, with the file of its traceback unless the user can fix it."""
    try:
        app(prog_name="gradsim")
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # noqa: BLE001 - a panic of polars is no `Exception`
        text = str(error) if isinstance(error, GradsimError) else _unexpected(error)
        console.print(f"[bold red]error:[/] {escape(text)}", soft_wrap=True)
        sys.exit(1)


def _unexpected(error: BaseException) -> str:
    """Return the message of a full disk, or write the traceback to a file and return the message that names it."""
    text = f"unexpected {type(error).__name__} ({first_line(error)})"
    folders = [Path(tempfile.gettempdir())]
    with suppress(Exception):  # the environment may be what is wrong
        if found := disk_error(error):
            return str(found)
        folders.insert(0, read_environment().data_root / ".errors")
    for folder in folders:
        with suppress(OSError):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(
                "w", dir=folder, prefix="gradsim-", suffix=".txt", delete=False, encoding="utf-8", errors="replace"
            ) as file:
                traceback.print_exception(error, file=file)
            return f"{text}, a fault of gradsim or of a package it uses; report it with {file.name}"
    return f"{text}, and its traceback cannot be written to {folders[0]}; make room there and run again"


if __name__ == "__main__":
    main()
