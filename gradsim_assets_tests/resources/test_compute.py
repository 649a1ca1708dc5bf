"""Bringing back what a job did, or why it failed: with processes that behave in every way that a job may."""

import json
import subprocess
import sys
from pathlib import Path

import dagster as dg
import polars as pl
import pytest

from gradsim.dataset.samples import SAMPLES_SCHEMA
from gradsim.environment import JOB_VARIABLES
from gradsim.partition_job import JobResult, PartitionJob, result_path
from gradsim.study import ModelConfiguration
from gradsim.tables import SCHEMAS, Store
from resources import compute as module
from resources.compute import MOST_RETRIES, ComputeResource, Performed
from resources.local import LocalCompute

pytestmark = pytest.mark.slow


@pytest.fixture
def job(study, tmp_path):
    """A job whose inputs and outputs are there."""
    (tmp_path / "originals.jsonl").touch()
    root = tmp_path / "data root"
    store = Store(root, study)
    shared = ((name, None) for name in ("samples", "model", "tokenized"))
    of_setting = ((name, "word_dropout") for name in ("queries", "tokenized", "candidates", "dot_products"))
    for key in (store.lineage.key(name, setting) for name, setting in (*shared, *of_setting)):
        for partition in store.partitions(key):
            store.write(key, SCHEMAS[key.name].empty(), partition)
    return PartitionJob(
        study=study,
        keys=(key,),
        partitions=("0000-0001", "0002-0003"),
        fingerprints={str(key): store.lineage.fingerprint(key)},
        root=root,
        model=ModelConfiguration("a model", device="cpu"),
    )


@pytest.fixture
def run(job, behaving_server, monkeypatch):
    """Runs the job as a process that does what is given, in a step; its result, or the step's failure."""
    monkeypatch.setattr("resources.local._server", behaving_server)
    monkeypatch.setattr("resources.local.JOB_MODULE", "behaving_job")

    def run(behaviour):
        monkeypatch.setenv("BEHAVIOUR", behaviour)
        results = []

        @dg.asset
        def table(context: dg.AssetExecutionContext, compute: ComputeResource) -> dg.MaterializeResult:
            results.append(compute.run(context, job))
            return dg.MaterializeResult()

        with dg.DagsterInstance.ephemeral() as instance:
            materialized = dg.materialize(
                [table], resources={"compute": LocalCompute()}, instance=instance, raise_on_error=False
            )
        if materialized.success:
            return results[0]
        (failure,) = (event for event in materialized.all_events if event.is_step_failure)
        assert not materialized.get_asset_materialization_events()
        return failure.step_failure_data.user_failure_data

    return run


def test_what_a_job_did_comes_back(run, job):
    result = run('leave(computed={"dot_products": ["0000-0001"]}, measured={"passes": 3})')
    assert result == JobResult(
        partitions=job.partitions,
        fingerprints=job.fingerprints,
        computed={"dot_products": ["0000-0001"]},
        measured={"passes": 3},
    )


def test_a_job_is_told_everything_and_leaves_nothing_behind(run, job, tmp_path):
    told = tmp_path / "told.json"
    run(f"Path({str(told)!r}).write_text(json.dumps([str(path), job()])); leave()")
    path, content = json.loads(told.read_text(encoding="utf-8"))
    assert PartitionJob.model_validate(content) == job
    assert not Path(path).parent.exists()


def test_a_job_keeps_freed_memory_and_lets_threads_sleep_unless_the_user_says_otherwise(run, tmp_path, monkeypatch):
    for name in JOB_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MALLOC_TOP_PAD_", "4096")
    told = tmp_path / "told.json"
    run(f"Path({str(told)!r}).write_text(json.dumps(dict(os.environ))); leave()")
    expected = {**JOB_VARIABLES, "MALLOC_TOP_PAD_": "4096"}
    assert expected.items() <= json.loads(told.read_text(encoding="utf-8")).items()


@pytest.mark.parametrize(
    ("behaviour", "explanation"),
    [
        ("sys.exit(7)", "it ended with exit status 7; its output is in the step's stderr"),
        ("os.kill(os.getpid(), signal.SIGSEGV)", "it was killed by SIGSEGV"),
        (
            "os.kill(os.getpid(), signal.SIGKILL)",
            "it was killed by SIGKILL, which usually means that the system ran out of ",
        ),
        ("path.with_suffix('.result.json').write_text('{\"partiti')", "it ended with exit status 0"),
    ],
    ids=["exit status", "crash", "out of memory", "half a result"],
)
def test_a_job_without_a_result_is_explained(run, behaviour, explanation):
    failure = run(behaviour)
    assert failure.description.startswith(f"the partition job left no result: {explanation}")


def test_an_out_of_memory_kill_says_how_to_mend_it(run):
    failure = run("os.kill(os.getpid(), signal.SIGKILL)")
    assert failure.description.endswith("(GRADSIM_MEMORY_BUDGET=4GiB), or make the study's partitions smaller")


@pytest.mark.parametrize(
    "behaviour",
    ['leave(partitions=["0000-0001"])', 'leave(fingerprints={"dot_products": "another"})'],
    ids=["partitions", "fingerprints"],
)
def test_a_result_that_is_not_what_was_asked_for_is_refused(run, behaviour):
    assert run(behaviour).description.startswith("the partition job's result does not match the request: ")


def test_a_result_without_its_tables_is_not_believed(run, job):
    store, (key,) = job.store(), job.keys
    path = store.path(key, "0002-0003")
    content = path.read_bytes()
    ended_well = "although the partition job ended well; run it again"
    path.unlink()
    assert run("leave()").description == f"{path} is missing, {ended_well}"
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert run("leave()").description == f"{path} is corrupt, {ended_well}"
    path.write_bytes(content)
    assert isinstance(run("leave()"), JobResult)
    tokens = store.lineage.key("tokenized")
    store.write(store.lineage.key("samples"), pl.DataFrame({"id": ["a"], "messages": [[]]}, SAMPLES_SCHEMA))
    store.write(tokens, SCHEMAS["tokenized"].empty())
    assert run("leave()").description == f"{store.path(key, '0000-0001')} is stale, {ended_well}"


def test_a_job_that_breaks_after_its_result_is_not_believed(run):
    description = run("leave(); sys.exit(1)").description
    assert description.startswith(
        "the partition job failed after it had written its result: it ended with exit status 1"
    )


def test_what_the_user_can_mend_is_said_in_the_jobs_own_words(run):
    assert run("leave(error='sample s01: fix it'); sys.exit(3)").description == "sample s01: fix it"


def test_a_fault_of_ours_brings_its_traceback(run):
    failure = run("leave(traceback='Traceback (most recent call last):\\n  File x\\nValueError: boom\\n'); sys.exit(1)")
    assert failure.description == "the partition job crashed: ValueError: boom"
    assert "  File x\nValueError: boom" in failure.metadata["traceback"].value


class FailingCompute(ComputeResource):
    """Fails so many times, in a way that trying again may help or not, and then does a job."""

    calls: str
    failures: int
    worth_a_retry: bool = True

    @property
    def is_here(self) -> bool:
        return False

    def perform(self, context: dg.AssetExecutionContext, job: PartitionJob) -> Performed:
        with Path(self.calls).open("a+", encoding="utf-8") as calls:
            calls.write("call\n")
            calls.seek(0)
            count = len(calls.readlines())
        if count <= self.failures:
            return Performed(None, f"its node failed, number {count}", self.worth_a_retry, {"node": "lab1"})
        result = JobResult(partitions=job.partitions, fingerprints=job.fingerprints, measured={"passes": count})
        return Performed(result, used={"slurm_job_id": 17, "passes": count})


@pytest.fixture
def try_job(job, tmp_path, monkeypatch):
    """Has a compute resource that fails run the job in a step; the run, the step's results, and how often it tried."""
    monkeypatch.setattr(module, "SECONDS_TO_RETRY", 0)

    def try_job(**behaviour):
        calls, results = tmp_path / "calls", []

        @dg.asset
        def table(context: dg.AssetExecutionContext, compute: ComputeResource) -> dg.MaterializeResult:
            results.append(compute.run(context, job))
            return dg.MaterializeResult()

        compute = FailingCompute(calls=str(calls), **behaviour)
        with dg.DagsterInstance.ephemeral() as instance:
            run = dg.materialize([table], resources={"compute": compute}, instance=instance, raise_on_error=False)
        return run, results, len(calls.read_text().splitlines())

    return try_job


def count(run, kind):
    return sum(event.event_type is kind for event in run.all_events)


@pytest.mark.parametrize("failures", [0, 1, MOST_RETRIES])
def test_a_job_that_failed_for_no_reason_of_its_own_is_run_again(try_job, failures):
    run, (result,), tries = try_job(failures=failures)
    assert run.success
    assert tries == failures + 1
    assert count(run, dg.DagsterEventType.STEP_RESTARTED) == failures
    assert len(run.get_asset_materialization_events()) == 1
    assert result.measured == {"passes": tries, "slurm_job_id": 17}


def test_it_is_not_run_again_for_ever_and_says_why_at_last(try_job):
    run, results, tries = try_job(failures=100)
    assert not run.success
    assert not results
    assert tries == MOST_RETRIES + 1
    (failure,) = (event for event in run.all_events if event.is_step_failure)
    assert failure.step_failure_data.user_failure_data.description == (
        f"the partition job left no result: its node failed, number {tries}"
    )


def test_a_job_that_would_fail_again_is_not_run_again(try_job):
    run, _, tries = try_job(failures=1, worth_a_retry=False)
    assert tries == 1
    assert count(run, dg.DagsterEventType.STEP_RESTARTED) == 0
    (failure,) = (event for event in run.all_events if event.is_step_failure)
    said = failure.step_failure_data.user_failure_data
    assert said.description == "the partition job left no result: its node failed, number 1"
    assert said.metadata["node"].value == "lab1"


def start_real_job(path):
    return subprocess.run(
        [sys.executable, "-m", "gradsim.partition_job", str(path)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.slow
def test_the_real_job_says_which_table_is_missing(job, tmp_path, study):
    elsewhere = job.model_copy(update={"root": tmp_path / "empty"})
    path = tmp_path / "job.json"
    path.write_text(elsewhere.model_dump_json(), encoding="utf-8")
    process = start_real_job(path)
    result = JobResult.model_validate_json(result_path(path).read_text(encoding="utf-8"))
    assert process.returncode == 3
    assert f"is missing in {elsewhere.root}; materialize it, or run `gradsim run " in (result.error or "")
    assert (result.partitions, result.fingerprints) == (job.partitions, job.fingerprints)
    assert "Traceback" not in process.stderr


@pytest.mark.slow
def test_the_real_job_refuses_another_definition_than_the_senders(job, tmp_path):
    (key,) = job.fingerprints
    other = job.model_copy(update={"fingerprints": {key: "0123456789abcdef"}})
    path = tmp_path / "job.json"
    path.write_text(other.model_dump_json(), encoding="utf-8")
    assert start_real_job(path).returncode == 3
    result = JobResult.model_validate_json(result_path(path).read_text(encoding="utf-8"))
    assert "the job was sent for fingerprint 0123456789abcdef, but here it is " in (result.error or "")


@pytest.mark.slow
def test_a_corrupt_job_file_leaves_no_result_but_the_reason(tmp_path):
    path = tmp_path / "job.json"
    path.write_text('{"study": ', encoding="utf-8")
    process = start_real_job(path)
    assert process.returncode == 1
    assert "JSONDecodeError" in (JobResult.model_validate_json(result_path(path).read_text()).traceback or "")
