"""dagster-slurm's client, less what its release 1.22.0 gets wrong.

- It may take up another partition's job, and record its data: a job is known here by what it computes
  (`PartitionJob.identity`), asked of Slurm itself, and never by an asset's name.
- Seconds without ssh or Slurm fail the run and leave the job an orphan: here looking at a job goes on until there is an
  answer, and a submission whose answer was lost is found again.
- Without accounting it waits five minutes, then takes a job for successful: here only a job's own result counts.
"""

import io
import shlex
import tarfile
import time
from collections.abc import Callable, Mapping
from datetime import timedelta

import dagster as dg
from dagster_slurm import BashLauncher, SlurmPipesClient

from gradsim.errors import ClusterError
from gradsim.partition_job import PartitionJob
from resources.slurm.connection import Connection
from resources.slurm.failures import NO_ENVIRONMENT, is_away, refusal
from resources.slurm.job_state import LOG, MESSAGES, RESULT, STATUS, TAKEN, JobEnd
from resources.slurm.messages import FedMessageReader
from resources.slurm.script import JOB_FILE, SCRIPT, batch_script, describe, sbatch_command
from resources.slurm.site import Site
from resources.slurm.watch import JobWatch

# How long a cluster may be away before a job of this run is there; afterwards there is no limit.
SECONDS_TO_SUBMIT = 600

# Of the files of a job whose result was taken: who wonders about it may look.
_MINUTES_TO_KEEP = 24 * 60

_SECONDS_TO_CANCEL = 60


class PartitionJobClient(SlurmPipesClient):
    """Runs one partition job to its end, whatever happens between here and the cluster."""

    def __init__(self, site: Site, connection: Connection, walltime: timedelta, log: Callable[[str], None]) -> None:
        super().__init__(
            slurm_resource=site.resource(walltime),
            launcher=BashLauncher(),
            cleanup_on_failure=False,
            pre_deployed_env_path=str(site.environment),
        )
        self._site = site
        self._connection = connection
        self._log = log

    def run(  # type: ignore[override]  # the stock one takes any script, and cannot know what it computes
        self, *, context: dg.AssetExecutionContext, job: PartitionJob, identity: str
    ) -> JobEnd:
        """Submit a job, or take up the living one that does the same; wait for its end.

        An interrupt cancels the job if the run is being terminated, and otherwise leaves it to the next run.

        Raises:
            ClusterError: the job cannot be submitted.
        """
        folder = self._site.job_folder(identity)
        reader = FedMessageReader(str(folder / MESSAGES))
        with dg.open_pipes_session(
            context=context, context_injector=dg.PipesEnvContextInjector(), message_reader=reader
        ) as pipes:
            job_id = self.submit(job, identity, pipes.get_bootstrap_env_vars())
            try:
                return self._wait(context, JobWatch(self._connection, folder, job_id, reader, self._log))
            except (KeyboardInterrupt, dg.DagsterExecutionInterruptedError):
                self._leave(job_id, canceled=self._is_run_canceling(context.op_execution_context))
                raise

    # -- submitting --------------------------------------------------------------------------

    def submission(self, job: PartitionJob, identity: str, variables: Mapping[str, str]) -> tuple[str, str]:
        """The `sbatch` command of a job, and its script."""
        folder = self._site.job_folder(identity)
        command = sbatch_command(self, self._site, _job_name(identity), folder, describe(job))
        return command, batch_script(self._site, job, folder, variables)

    def submit(self, job: PartitionJob, identity: str, variables: Mapping[str, str]) -> int:
        """Slurm's number of the job that does this: a living one, one that has done it unseen, or a new one.

        Raises:
            ClusterError: it cannot be submitted; says why, and how to mend it.
        """
        sbatch, script = self.submission(job, identity, variables)
        command = _submit_command(self._site, identity, sbatch)
        files = _archive({JOB_FILE: job.model_dump_json(), SCRIPT: script})
        deadline = time.monotonic() + SECONDS_TO_SUBMIT
        while True:
            answer = self._connection.patiently(command, files, seconds=SECONDS_TO_SUBMIT, timeout=120)
            if answer.status == 0:
                break
            if not is_away(answer) or time.monotonic() > deadline:
                raise ClusterError(refusal(answer, self._site))
            self._log(f"Slurm's controller does not answer ({answer.errors.splitlines()[-1]}); trying again")
            time.sleep(5)
        how, number = answer.text.split()[-2:]
        told = {
            "submitted": f"submitted Slurm job {number}",
            "living": f"Slurm job {number} does this already; taken up again",
            "finished": f"Slurm job {number} did this while nobody looked; its result is taken",
        }
        self._log(f"{told[how]} ({describe(job)}); its files: {self._site.job_folder(identity)}")
        return int(number)

    # -- waiting -----------------------------------------------------------------------------

    def _wait(self, context: dg.AssetExecutionContext, watch: JobWatch) -> JobEnd:
        pause = self.slurm.status_poll_interval_seconds
        while not watch.has_ended():
            if self._is_run_canceling(context.op_execution_context):
                raise dg.DagsterExecutionInterruptedError
            time.sleep(pause)
            slower = self.slurm.next_status_poll_interval(pause)
            pause = self.slurm.status_poll_interval_seconds if watch.saw_something_new else slower
        return watch.end()

    # -- leaving -----------------------------------------------------------------------------

    def _leave(self, job_id: int, *, canceled: bool) -> None:
        if not canceled:
            self._log(f"interrupted; Slurm job {job_id} goes on, run again to take it up (to end it: scancel {job_id})")
            return
        try:
            self._connection.patiently(f"scancel {job_id}", seconds=_SECONDS_TO_CANCEL)
            self._log(f"Slurm job {job_id} is canceled")
        except ClusterError as error:
            self._log(f"Slurm job {job_id} could not be canceled ({error}); do it by hand: scancel {job_id}")

    def mark_taken(self, identity: str) -> None:
        """Say that a job's result was taken: its files go when they are old, since another run may still read them."""
        self._connection.patiently(f"touch {shlex.quote(str(self._site.job_folder(identity) / TAKEN))}")


def _job_name(identity: str) -> str:
    return f"gradsim-{identity}"


def _submit_command(site: Site, identity: str, sbatch: str) -> str:
    """Looks whether the job is there, else submits it; both under a lock, so that it may run twice."""
    folder, name = shlex.quote(str(site.job_folder(identity))), _job_name(identity)
    # What a container holds the login node need not see.
    python = "" if site.settings.container else f"[ -x {shlex.quote(str(site.python))} ] || exit {NO_ENVIRONMENT}"
    return f"""
{python}
umask 077; mkdir -p {folder} && cd {folder} || exit 4
exec 9>lock; flock -w 60 9 || true
living=$(timeout 30 squeue -h -u "$(id -un)" --name={name} -o '%i %T') || exit 5
living=$(printf '%s\\n' "$living" | grep -v COMPLETING | head -n 1)
if [ -n "$living" ]; then echo living "${{living%% *}}"; exit 0; fi
if [ -s job_id ] && [ -s {RESULT} ] && [ "$(cat {STATUS} 2>/dev/null)" = 0 ] && [ ! -e {TAKEN} ]; then
  echo finished "$(cat job_id)"; exit 0
fi
rm -f job_id {RESULT} {STATUS} {MESSAGES} {LOG} {TAKEN}
find .. -mindepth 2 -maxdepth 2 -name {TAKEN} -mmin +{_MINUTES_TO_KEEP} -printf '%h\\0' | xargs -0 -r rm -rf
tar -xf - || exit 4
id=$({sbatch}) || exit 5
echo "${{id%%;*}}" > job_id || true
echo submitted "${{id%%;*}}"
"""


def _archive(files: Mapping[str, str]) -> bytes:
    """Files as tar writes them."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, text in files.items():
            content = text.encode()
            header = tarfile.TarInfo(name)
            header.size, header.mode = len(content), 0o600
            archive.addfile(header, io.BytesIO(content))
    return buffer.getvalue()
