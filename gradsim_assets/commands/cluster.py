"""`gradsim cluster`: is the cluster ready, and make it so."""

from typing import Annotated

import typer
from rich.markup import escape

from gradsim.environment import read_environment
from gradsim_assets.commands.findings import Findings
from gradsim_assets.launch.console import console

app = typer.Typer(help="The Slurm cluster of .env (SLURM_...): check it, prepare it.", no_args_is_help=True)

JobOption = Annotated[bool, typer.Option(help="Run a short job on a compute node, too.")]
WaitOption = Annotated[
    float, typer.Option("--wait", metavar="SECONDS", help="How long the job may wait in the queue.", min=0)
]


@app.command()
def check(job: JobOption = True, wait: WaitOption = 300) -> None:
    """Is the cluster ready? From the settings to a short job on a compute node.

    Says what is wrong, and how to mend it. The exit status is 1 where something is; nothing is left on the cluster.
    """
    findings = Findings()
    examine_cluster(findings, job=job, wait=wait)
    if findings.failed:
        raise typer.Exit(1)
    verdict = "nothing is wrong; see what is marked !" if findings.doubtful else "the cluster is ready"
    local = read_environment().compute == "local"
    console.print(verdict + ("; GRADSIM_COMPUTE=slurm computes there" if local else ""))


def examine_cluster(findings: Findings, *, job: bool, wait: float) -> None:
    """Make the checks of the cluster, and print what comes out."""
    from resources.slurm.check import CHECKS, JOB_CHECKS, Cluster  # noqa: PLC0415 - takes a second to load

    with Cluster(read_environment(), findings.say, seconds_to_start=wait) as cluster:
        findings.examine([*CHECKS, *(JOB_CHECKS if job else ())], cluster)


@app.command()
def install() -> None:
    """Put this code and all that jobs need into an environment of its own on the cluster.

    It is of this version of the code, so that running jobs keep theirs; one that is there already is left alone. Python
    is SLURM_PYTHON (3.11 or 3.12); SLURM_SETUP runs first, where PIP_... variables tell pip what a site wants.
    """
    from resources.slurm.install import Installation, InstallError  # noqa: PLC0415 - takes a second to load

    try:
        with console.status("looking at the cluster") as status:
            installation = Installation.open(lambda text: status.update(f"[dim]{escape(text)}[/]"))
            done = installation.run()
            others = installation.others()
    except InstallError as error:
        console.print(f"[dim]{escape(error.log)}[/]", soft_wrap=True)
        raise
    except KeyboardInterrupt:
        console.print("interrupted; what has begun there goes on: run it again to wait for it")
        raise typer.Exit(1) from None
    console.print(f"[green]✓[/] {escape(done)}", soft_wrap=True)
    if others:
        console.print("other versions there, of which running jobs may still need one:")
        for folder, size in others.items():
            console.print(f"  {size:>8}  {escape(folder)}", soft_wrap=True)
        console.print(f"to remove one: [bold]{escape(installation.removal)}[/]", soft_wrap=True)
