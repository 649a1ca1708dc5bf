"""The commands `cluster check` and `cluster install`."""

from rich.markup import escape

from gradsim.environment import read_environment
from gradsim_assets.commands.findings import Findings
from gradsim_assets.terminal import console
from resources.slurm.check import CHECKS, JOB_CHECKS, Cluster
from resources.slurm.install import Installation, InstallError


def check_cluster(*, job: bool, wait: float) -> bool:
    """Check the cluster, print the findings, and return whether nothing is wrong.

    Args:
        job: run a short job on a compute node, too.
        wait: seconds that the job may wait in the queue.
    """
    findings = Findings()
    examine_cluster(findings, job=job, wait=wait)
    if findings.failed:
        return False
    verdict = "nothing is wrong; see what is marked !" if findings.doubtful else "the cluster is ready"
    local = read_environment().compute == "local"
    console.print(verdict + ("; GRADSIM_COMPUTE=slurm computes there" if local else ""))
    return True


def examine_cluster(findings: Findings, *, job: bool, wait: float) -> None:
    """Run the checks of the cluster; arguments as of `check_cluster`."""
    with Cluster(read_environment(), findings.say, seconds_to_start=wait) as cluster:
        findings.examine([*CHECKS, *(JOB_CHECKS if job else ())], cluster)


def install_on_cluster() -> bool:
    """Install this version of the code on the cluster, and return whether that was done.

    Raises:
        InstallError: it failed; the log has been printed.
    """
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
        return False
    console.print(f"[green]✓[/] {escape(done)}", soft_wrap=True)
    if others:
        console.print("other versions there, which running jobs may still need:")
        for folder, size in others.items():
            console.print(f"  {size:>8}  {escape(folder)}", soft_wrap=True)
        console.print(f"to remove one: [bold]{escape(installation.removal)}[/]", soft_wrap=True)
    return True
