"""The job file: what a job takes upon itself, and what it refuses. That it computes is tested end to end."""

import json
import os
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest
from pydantic import ValidationError

from gradsim.errors import TableError
from gradsim.partition_job import JobResult, PartitionJob, result_path
from gradsim.study import ModelConfiguration, Study
from gradsim.tables import SCHEMAS, Store, TableKey
from gradsim_assets_tests.studies import two_partitions

KEYS = ("0000-0001", "0002-0003")
TABLES = ("dot_products", "query_self")
AUDIT_KEY = TableKey("mine", "gradient_audit", "dropped", "analysis")


@pytest.fixture
def study(tmp_path: Path) -> Study:
    return two_partitions(tmp_path)


@pytest.fixture
def job(study: Study, tmp_path: Path) -> PartitionJob:
    """A job for two tables of two partitions, whose inputs are there."""
    store = Store(tmp_path / "data root", study)
    keys = {table: key(table) for table in TABLES}
    for node in store.lineage:
        if node.key.room is None and node.key.name not in {*TABLES, "report"}:
            frame = SCHEMAS[node.key.name].empty()
            if node.key.name == "samples":
                frame = frame.clear(4).with_columns(pl.Series("id", list("abcd")))
            for partition in store.partitions(node.key):
                store.write(node.key, frame, partition)
    return PartitionJob(
        study=study,
        keys=tuple(keys.values()),
        partitions=KEYS,
        fingerprints={str(key): store.lineage.fingerprint(key) for key in keys.values()},
        root=store.root,
        model=ModelConfiguration("org/model", device="cuda:99"),
    )


def key(table: str) -> TableKey:
    return TableKey("mine", table, "dropped")


def run(job_file: Path) -> "subprocess.CompletedProcess[str]":
    environment = {name: value for name, value in os.environ.items() if name != "DAGSTER_PIPES_CONTEXT"}
    command = [sys.executable, "-m", "gradsim.partition_job", str(job_file)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_a_job_survives_its_file(job: PartitionJob) -> None:
    again = PartitionJob.model_validate_json(job.model_dump_json())
    assert again == job
    again.check(again.store())


def test_an_unknown_key_is_refused(job: PartitionJob) -> None:
    content = {**json.loads(job.model_dump_json()), "gpus": 8}
    with pytest.raises(ValidationError, match="gpus"):
        PartitionJob.model_validate(content)


class TestWork:
    def test_all_of_it_at_first(self, job: PartitionJob) -> None:
        assert job.work(job.store()) == {partition: [key(table) for table in TABLES] for partition in KEYS}

    def test_only_what_is_not_fresh(self, job: PartitionJob) -> None:
        """A job that is run again continues where it ended."""
        store = job.store()
        for table, partition in [("dot_products", KEYS[0]), ("query_self", KEYS[0]), ("query_self", KEYS[1])]:
            store.write(key(table), SCHEMAS[table].empty(), partition)
        assert job.work(store) == {KEYS[1]: [key("dot_products")]}
        store.path(key("query_self"), KEYS[0]).write_bytes(b"half")
        assert job.work(store) == {KEYS[0]: [key("query_self")], KEYS[1]: [key("dot_products")]}
        store.write(store.lineage.key("candidates", "dropped"), SCHEMAS["candidates"].empty(), KEYS[1])
        assert job.work(store) == {
            KEYS[0]: [key("query_self")],
            KEYS[1]: [key("dot_products")],
        }  # the same candidates again

    def test_everything_with_force(self, job: PartitionJob) -> None:
        store = job.store()
        for table in TABLES:
            store.write(key(table), SCHEMAS[table].empty(), KEYS[0])
        assert job.model_copy(update={"force": True}).work(store) == {
            partition: [key(table) for table in TABLES] for partition in KEYS
        }


def test_another_definition_than_the_sender_s(job: PartitionJob) -> None:
    """The node's code or data files are others."""
    sent = job.fingerprints["mine/dropped/dot_products"]
    (job.root.parent / "originals.jsonl").write_text("edited")
    found = job.store().lineage.fingerprint(key("dot_products"))
    assert found != sent
    with pytest.raises(TableError) as caught:
        job.check(job.store())
    assert str(caught.value) == (
        f"mine/dropped/dot_products: the job was sent for fingerprint {sent}, "
        f"but here it is {found}; synchronize the project and its files"
    )


class TestTableWithoutPartitions:
    @pytest.fixture
    def audit(self, job: PartitionJob) -> PartitionJob:
        changes = {
            "keys": (AUDIT_KEY,),
            "partitions": (None,),
            "fingerprints": {str(AUDIT_KEY): job.store().lineage.fingerprint(AUDIT_KEY)},
        }
        return job.model_copy(update=changes)

    def test_it_survives_its_file(self, audit: PartitionJob) -> None:
        again = PartitionJob.model_validate_json(audit.model_dump_json())
        assert again == audit
        assert again.only_key == AUDIT_KEY
        again.check(again.store())

    def test_work(self, audit: PartitionJob) -> None:
        store = audit.store()
        assert audit.work(store) == {None: [AUDIT_KEY]}
        for table in ("dot_products", "query_self", "original_self"):
            for partition in KEYS:
                store.write(store.lineage.key(table, "dropped"), SCHEMAS[table].empty(), partition)
            store.write(store.lineage.key(table, "dropped", "results"), SCHEMAS[table].empty())
        store.write(AUDIT_KEY, SCHEMAS["gradient_audit"].empty())
        assert audit.work(store) == {}

    def test_a_result_survives_its_file(self, audit: PartitionJob) -> None:
        result = JobResult(partitions=(None,), fingerprints={}, computed={"gradient_audit": [None]})
        assert JobResult.model_validate_json(result.model_dump_json()) == result


def test_what_computes_a_table(job: PartitionJob) -> None:
    kinds = [
        job.model_copy(update={"keys": (key(table),)}).kind for table in ("queries", "query_self", "gradient_audit")
    ]
    assert kinds == ["queries", "gradients", "audit"]
    assert job.kind == "gradients"


@pytest.mark.slow
class TestProcess:
    def test_an_error_stands_in_the_result(self, job: PartitionJob, tmp_path: Path) -> None:
        path = tmp_path / "job.json"
        path.write_text(job.model_dump_json())
        process = run(path)
        result = JobResult.model_validate_json(result_path(path).read_text())
        assert process.returncode == 3
        assert result.error is not None
        assert result.error.startswith("device 'cuda:99' is not available, only cpu")
        assert f"error: {result.error}" in process.stderr
        assert "Traceback" not in process.stderr
        assert (result.partitions, result.fingerprints, result.computed) == (KEYS, job.fingerprints, {})
        assert not list(job.root.rglob("*.partial"))

    def test_nothing_to_do_is_done_without_a_device(self, job: PartitionJob, tmp_path: Path) -> None:
        store = job.store()
        for table in TABLES:
            for partition in KEYS:
                store.write(key(table), SCHEMAS[table].empty(), partition)
        path = tmp_path / "job.json"
        path.write_text(job.model_dump_json())
        assert run(path).returncode == 0
        result = JobResult.model_validate_json(result_path(path).read_text())
        assert (result.error, result.traceback, result.computed) == (None, None, {})
