"""The commands `cluster check` and `cluster install`."""

from rich.markup import escape

from gradsim.environment import read_environment
from gradsim_assets.commands.findings import Findings
from gradsim_assets.terminal import console
from resources.slurm.check import CHECKS, JOB_CHECKS, Cluster
from resources.slurm.install import Installation, InstallError


def check_cluster(*, job: bool, wait: float) -> bool:
    """Check the cluster, print the findings, and return whether no check failed."""
    findings = Findings()
    examine_cluster(findings, job=job, wait=wait)
    if findings.failed:
        return False
    verdict = "no check failed; see the warnings marked !" if findings.doubtful else "the cluster is ready"
    local = read_environment().compute == "local"
    console.print(verdict + ("; set GRADSIM_COMPUTE=slurm to use it" if local else ""))
    return True


def examine_cluster(findings: Findings, *, job: bool, wait: float) -> None:
    """Run the checks of the cluster, with the arguments of `check_cluster`."""
    with Cluster(read_environment(), findings.say, seconds_to_start=wait) as cluster:
        findings.examine([*CHECKS, *(JOB_CHECKS if job else ())], cluster)


def install_on_cluster() -> bool:
    """Install this version of the code on the cluster; return whether it is installed, false after an interrupt.

    Raises:
        ClusterError: The installation cannot be started.
        InstallError: The installation failed; its log has been printed.
    """
    try:
        with console.status("connecting to the cluster") as status:
            installation = Installation.open(lambda text: status.update(f"[dim]{escape(text)}[/]"))
            done = installation.run()
            others = installation.others()
    except InstallError as error:
        console.print(f"[dim]{escape(error.log)}[/]", soft_wrap=True)
        raise
    except KeyboardInterrupt:
        console.print(
            "interrupted; an installation that has started continues on the cluster: run again to wait for it"
        )
        return False
    console.print(f"[green]✓[/] {escape(done)}", soft_wrap=True)
    if others:
        console.print("other installed versions, which running jobs may still need:")
        for folder, size in others.items():
            console.print(f"  {size:>8}  {escape(folder)}", soft_wrap=True)
        console.print(f"to remove one: [bold]{escape(installation.removal)}[/]", soft_wrap=True)
    return True
