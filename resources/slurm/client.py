"""dagster-slurm's client, less what its release 1.22.0 gets wrong.

- It may take up another partition's job, and record its data: a job is known here by what it computes
  (`PartitionJob.identity`), asked of Slurm itself, and never by an asset's name.
- Seconds without ssh or Slurm fail the run and leave the job an orphan: here looking at a job goes on until there is an
  answer, and a submission whose answer was lost is found again.
- Without accounting it waits five minutes, then takes a job for successful: here only a job's own result counts.
"""

import shlex
import time
from collections.abc import Callable, Mapping
from datetime import timedelta

import dagster as dg
from dagster_slurm import BashLauncher, SlurmPipesClient

from gradsim.errors import ClusterError
from gradsim.partition_job import PartitionJob
from resources.slurm.archive import archive
from resources.slurm.connection import Answer, Connection
from resources.slurm.failures import NO_ENVIRONMENT, is_away, refusal
from resources.slurm.job_state import LOG, MESSAGES, RESULT, STATUS, TAKEN, JobEnd, job_number
from resources.slurm.messages import FedMessageReader
from resources.slurm.script import JOB_FILE, SCRIPT, batch_script, describe, sbatch_command
from resources.slurm.site import Site
from resources.slurm.watch import JobWatch

# How long a cluster may be away before a job of this run is there; afterwards there is no limit.
SECONDS_TO_SUBMIT = 600

# Of the files of a job whose result was taken: who wonders about it may look.
_MINUTES_TO_KEEP = 24 * 60

_SECONDS_TO_CANCEL = 60

# Exit statuses of our submission: no folder, sbatch or squeue failed, somebody else is submitting the same job.
_NO_FOLDER, _REFUSED, _BUSY = 4, 5, 7


class PartitionJobClient(SlurmPipesClient):
    """Runs one partition job to its end, whatever happens between here and the cluster."""

    def __init__(self, site: Site, connection: Connection, walltime: timedelta, log: Callable[[str], None]) -> None:
        super().__init__(site.resource(), BashLauncher())
        self._site = site
        self._connection = connection
        self._walltime = walltime
        self._log = log

    def run(  # type: ignore[override]  # the stock one takes any script, and cannot know what it computes
        self, *, context: dg.AssetExecutionContext, job: PartitionJob, identity: str
    ) -> JobEnd:
        """Submit a job, or take up the living one that does the same; wait for its end.

        An interrupt cancels the job if the run is being terminated, and otherwise leaves it to the next run.

        Raises:
            ClusterError: the job cannot be submitted, or will never start.
        """
        folder = self._site.job_folder(identity)
        reader = FedMessageReader(str(folder / MESSAGES))
        with dg.open_pipes_session(
            context=context, context_injector=dg.PipesEnvContextInjector(), message_reader=reader
        ) as pipes:
            try:
                number = self.submit(job, identity, pipes.get_bootstrap_env_vars())
                return self._wait(context, JobWatch(self._connection, folder, number, reader, self._log), identity)
            except (KeyboardInterrupt, dg.DagsterExecutionInterruptedError):
                # A job that computes again what is there is this run's alone: no other would take it up.
                if job.force or self._is_run_canceling(context.op_execution_context):
                    self._cancel(identity)
                else:
                    by_hand = cancel_command(identity)
                    self._log(f"interrupted; its Slurm job goes on, run again to take it up (to end it: {by_hand})")
                raise

    # -- submitting --------------------------------------------------------------------------

    def submission(self, job: PartitionJob, identity: str, variables: Mapping[str, str]) -> tuple[str, str]:
        """The `sbatch` command of a job, and its script."""
        folder = self._site.job_folder(identity)
        command = sbatch_command(self._site, self._walltime, job_name(identity), folder, describe(job))
        return " ".join(command), batch_script(self._site, job, folder, variables)

    def submit(self, job: PartitionJob, identity: str, variables: Mapping[str, str]) -> int:
        """Slurm's number of the job that does this: a living one, one that has done it unseen, or a new one.

        Raises:
            ClusterError: it cannot be submitted; says why, and how to mend it.
        """
        sbatch, script = self.submission(job, identity, variables)
        command = _submit_command(self._site, identity, sbatch)
        files = archive({JOB_FILE: job.model_dump_json().encode(), SCRIPT: script.encode()})
        deadline = time.monotonic() + SECONDS_TO_SUBMIT
        while (answer := self._ask_to_submit(command, files)).status:
            waits = answer.status == _BUSY or is_away(answer)
            if not waits or time.monotonic() > deadline:
                raise ClusterError(refusal(answer, self._site))
            said = (answer.errors.splitlines() or ["somebody submits the same job"])[-1]
            self._log(f"Slurm's controller does not answer, or is busy ({said}); trying again")
            time.sleep(5)
        number = job_number(answer)
        told = {
            "submitted": f"submitted Slurm job {number}",
            "living": f"Slurm job {number} does this already; taken up again",
            "finished": f"Slurm job {number} did this while nobody looked; its result is taken",
        }
        how = next(text for word, text in told.items() if word in answer.text)
        self._log(f"{how} ({describe(job)}); its files: {self._site.job_folder(identity)}")
        return number

    def _ask_to_submit(self, command: str, files: bytes) -> Answer:
        return self._connection.patiently(command, files, seconds=SECONDS_TO_SUBMIT, timeout=120)

    # -- waiting -----------------------------------------------------------------------------

    def _wait(self, context: dg.AssetExecutionContext, watch: JobWatch, identity: str) -> JobEnd:
        pause = self.slurm.status_poll_interval_seconds
        while not watch.has_ended():
            if watch.never_starts_because:
                self._cancel(identity)
                raise ClusterError(watch.never_starts_because)
            if self._is_run_canceling(context.op_execution_context):
                raise dg.DagsterExecutionInterruptedError
            time.sleep(pause)
            slower = self.slurm.next_status_poll_interval(pause)
            pause = self.slurm.status_poll_interval_seconds if watch.saw_something_new else slower
        return watch.end()

    # -- leaving -----------------------------------------------------------------------------

    def _cancel(self, identity: str) -> None:
        """Cancel the job, and the submission that may still be on its way."""
        deadline = time.monotonic() + _SECONDS_TO_CANCEL
        folder = shlex.quote(str(self._site.job_folder(identity)))
        command = f"cd {folder} 2>/dev/null && exec 9>lock && flock -w 20 9; {cancel_command(identity)}"
        said = "the cluster is away"
        while time.monotonic() < deadline:
            try:
                answer = self._connection.patiently(command, seconds=deadline - time.monotonic())
            except ClusterError as error:
                said = str(error)
                break
            if answer.status == 0:
                self._log("its Slurm job is canceled, if there was one")
                return
            said = answer.errors
            time.sleep(2)
        self._log(f"its Slurm job could not be canceled ({said}); do it by hand: {cancel_command(identity)}")

    def mark_taken(self, identity: str) -> None:
        """Say that a job's result was taken: its files go when they are old, since another run may still read them."""
        self._connection.patiently(f"touch {shlex.quote(str(self._site.job_folder(identity) / TAKEN))} || true")


def job_name(identity: str) -> str:
    """By which Slurm knows a job."""
    return f"gradsim-{identity}"


def cancel_command(identity: str) -> str:
    """The command that ends a job."""
    return f"scancel --name={job_name(identity)}"


def _submit_command(site: Site, identity: str, sbatch: str) -> str:
    """Looks whether the job is there, else submits it; both under a lock, so that it may run twice.

    A file system may have no locks; a lock that is held by somebody else must be waited for.
    """
    folder, name = shlex.quote(str(site.job_folder(identity))), job_name(identity)
    # What a container holds the login node need not see.
    python = "" if site.settings.container else f"[ -x {shlex.quote(str(site.python))} ] || exit {NO_ENVIRONMENT}"
    return f"""
{python}
umask 077; mkdir -p {folder} && cd {folder} || exit {_NO_FOLDER}
exec 9>lock; flock -w 60 9; [ $? = 1 ] && exit {_BUSY}
jobs=$(timeout 30 squeue -h -a -u "$(id -un)" --name={name} -o '%i %T')
status=$?; [ $status = 124 ] && echo 'squeue: Socket timed out' >&2; [ $status = 0 ] || exit {_REFUSED}
living=$(printf '%s\n' "$jobs" | grep -v COMPLETING | head -n 1)
if [ -n "$living" ]; then echo "living ${{living%% *}}"; exit 0; fi
[ -z "$jobs" ] || exit {_BUSY}
if [ -s job_id ] && [ -s {RESULT} ] && [ "$(cat {STATUS} 2>/dev/null)" = 0 ] && [ ! -e {TAKEN} ]; then
  echo "finished $(cat job_id)"; exit 0
fi
rm -f job_id {RESULT} {STATUS} {MESSAGES} {LOG} {TAKEN}
find .. -mindepth 2 -maxdepth 2 -name {TAKEN} -mmin +{_MINUTES_TO_KEEP} -printf '%h\0' | xargs -0 -r rm -rf
tar -xf - || exit {_NO_FOLDER}
said=$({sbatch}) || exit {_REFUSED}
number=$(printf '%s\n' "$said" | grep -oE '^[0-9]+' | tail -n 1)
echo "$number" > job_id || true
echo "submitted $number"
"""
