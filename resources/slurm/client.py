"""A Slurm client that avoids three problems of dagster-slurm 1.22.0.

- The stock client identifies a job by its asset's name, so it may attach to another partition's job and record its
  data. This one identifies a job by what it computes (`PartitionJob.identity`), and asks Slurm itself.
- A few seconds without ssh or Slurm fail the stock client's run and orphan the job. This one polls until it gets an
  answer, and finds a submitted job again if the reply to the submission was lost.
- Without accounting, the stock client waits five minutes and then assumes success. This one trusts only the job's own
  result.
"""

import shlex
import time
from collections.abc import Callable, Mapping
from datetime import timedelta
from functools import partial

import dagster as dg
from dagster_slurm import BashLauncher, SlurmPipesClient

from gradsim.errors import ClusterError
from gradsim.partition_job import PartitionJob
from resources.messages import FedMessageReader
from resources.slurm.connection import Connection
from resources.slurm.failures import NO_ENVIRONMENT, is_away, refusal
from resources.slurm.job_state import LOG, MESSAGES, RESULT, STATUS, TAKEN, JobEnd, job_number
from resources.slurm.script import JOB_FILE, SCRIPT, archive, batch_script, describe, sbatch_command
from resources.slurm.site import Site
from resources.slurm.watch import JobWatch

# How long the cluster may be unreachable before the job is submitted; there is no limit afterwards.
SECONDS_TO_SUBMIT = 600

# How long a job's files are kept after its result was collected, for debugging.
_MINUTES_TO_KEEP = 24 * 60

_SECONDS_TO_CANCEL = 60

# Exit statuses of the submission script: no folder, sbatch or squeue failed, another process submits the same job.
_NO_FOLDER, _REFUSED, _BUSY = 4, 5, 7


class PartitionJobClient(SlurmPipesClient):
    """Runs one partition job until it ends, across network and Slurm outages."""

    def __init__(self, site: Site, connection: Connection, walltime: timedelta, log: Callable[[str], None]) -> None:
        super().__init__(site.resource(), BashLauncher())
        self._site = site
        self._connection = connection
        self._walltime = walltime
        self._log = log

    def run(  # type: ignore[override]  # the stock method takes an arbitrary script
        self, *, context: dg.AssetExecutionContext, job: PartitionJob, identity: str
    ) -> JobEnd:
        """Submit a job, or attach to a live job with the same identity, and wait until it ends.

        If the run is being terminated, an interrupt cancels the job. Otherwise the job keeps running for the next run
        to attach to, unless it is forced.

        Raises:
            ClusterError: The job cannot be submitted, or will never start.
        """
        folder = self._site.job_folder(identity)
        reader = FedMessageReader(str(folder / MESSAGES), context.log)
        with dg.open_pipes_session(
            context=context, context_injector=dg.PipesEnvContextInjector(), message_reader=reader
        ) as pipes:
            try:
                number = self.submit(job, identity, pipes.get_bootstrap_env_vars())
                return self._wait(context, JobWatch(self._connection, folder, number, reader, self._log), identity)
            except (KeyboardInterrupt, dg.DagsterExecutionInterruptedError):
                # A forced job belongs to this run alone: no other run would attach to it.
                if job.force or self._is_run_canceling(context.op_execution_context):
                    self._cancel(identity)
                else:
                    by_hand = cancel_command(identity)
                    self._log(
                        f"interrupted; the Slurm job keeps running, run again to attach (to cancel it: {by_hand})"
                    )
                raise

    # -- submitting --------------------------------------------------------------------------

    def submission(self, job: PartitionJob, identity: str, variables: Mapping[str, str]) -> tuple[str, str]:
        """Return a job's `sbatch` command and its batch script."""
        folder = self._site.job_folder(identity)
        command = sbatch_command(self._site, self._walltime, job_name(identity), folder, describe(job))
        return " ".join(command), batch_script(self._site, job, folder, variables)

    def submit(self, job: PartitionJob, identity: str, variables: Mapping[str, str]) -> int:
        """Return the Slurm id of the job for this identity: a live one, a finished unread one, or a new one.

        Raises:
            ClusterError: The job cannot be submitted. The message gives the reason and the fix.
        """
        sbatch, script = self.submission(job, identity, variables)
        command = _submit_command(self._site, identity, sbatch)
        files = archive({JOB_FILE: job.model_dump_json().encode(), SCRIPT: script.encode()})
        deadline = time.monotonic() + SECONDS_TO_SUBMIT
        ask = partial(self._connection.patiently, command, files, seconds=SECONDS_TO_SUBMIT, timeout=120)
        while (answer := ask()).status:
            waits = answer.status == _BUSY or is_away(answer)
            if not waits or time.monotonic() > deadline:
                raise ClusterError(refusal(answer, self._site))
            said = (answer.errors.splitlines() or ["another process is submitting the same job"])[-1]
            self._log(f"Slurm's controller does not answer or is busy ({said}); retrying")
            time.sleep(5)
        number = job_number(answer)
        told = {
            "submitted": f"submitted Slurm job {number}",
            "living": f"Slurm job {number} is already computing this; attached to it",
            "finished": f"Slurm job {number} finished while nothing was watching; using its result",
        }
        how = next(text for word, text in told.items() if word in answer.text)
        self._log(f"{how} ({describe(job)}); its files: {self._site.job_folder(identity)}")
        return number

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
        """Cancel the job, and wait for a submission that may still be in flight."""
        deadline = time.monotonic() + _SECONDS_TO_CANCEL
        folder = shlex.quote(str(self._site.job_folder(identity)))
        command = f"cd {folder} 2>/dev/null && exec 9>lock && flock -w 20 9; {cancel_command(identity)}"
        said = "the cluster is unreachable"
        while time.monotonic() < deadline:
            try:
                answer = self._connection.patiently(command, seconds=deadline - time.monotonic())
            except ClusterError as error:
                said = str(error)
                break
            if answer.status == 0:
                self._log("canceled the Slurm job, if there was one")
                return
            said = answer.errors
            time.sleep(2)
        self._log(f"the Slurm job could not be canceled ({said}); cancel it by hand: {cancel_command(identity)}")

    def mark_taken(self, identity: str) -> None:
        """Mark a job's result as collected.

        A later submission deletes the job's files once the mark is a day old; until then another run may read them.
        """
        self._connection.patiently(f"touch {shlex.quote(str(self._site.job_folder(identity) / TAKEN))} || true")


def job_name(identity: str) -> str:
    """Return the name of a job in Slurm."""
    return f"gradsim-{identity}"


def cancel_command(identity: str) -> str:
    """Return the command that cancels a job."""
    return f"scancel --name={job_name(identity)}"


def _submit_command(site: Site, identity: str, sbatch: str) -> str:
    """Return a shell script that finds a job, or submits it if there is none.

    Both happen under a lock, so the script may safely run twice. It waits for a lock that another process holds, and
    goes on without one if the file system does not support locks.
    """
    folder, name = shlex.quote(str(site.job_folder(identity))), job_name(identity)
    # An interpreter inside a container is not visible on the login node.
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
find .. -mindepth 2 -maxdepth 2 -name {TAKEN} -mmin +{_MINUTES_TO_KEEP} -printf '%h\\0' | xargs -0 -r rm -rf
tar -xf - || exit {_NO_FOLDER}
said=$({sbatch}) || exit {_REFUSED}
number=$(printf '%s\n' "$said" | grep -oE '^[0-9]+' | tail -n 1)
echo "$number" > job_id || true
echo "submitted $number"
"""
