"""What makes two jobs the same, and whose code and files a job is computed with."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import gradsim
from gradsim.errors import StudyError, TableError
from gradsim.partition_job import PartitionJob, code_version
from gradsim.study import ModelConfiguration, Study
from gradsim.tables import SCHEMAS, Store, TableKey

TABLES = ("dot_products", "query_self")
KEYS = tuple(TableKey("mine", table, "dropped") for table in TABLES)


def definition(folder: Path, **changes: Any) -> Study:
    content = {
        "name": "mine",
        "dataset": {"path": folder / "originals.jsonl"},
        "samples": 4,
        "model": {"name": "org/model"},
        "settings": {"dropped": {"method": "word_dropout"}, "read": {"method": "file", "path": folder / "read.jsonl"}},
        "partition_size": 2,
    }
    return Study.model_validate({**content, **changes})


@pytest.fixture
def job(tmp_path: Path) -> PartitionJob:
    """A job as it is sent from where the study's files are."""
    for name in ("originals.jsonl", "read.jsonl"):
        (tmp_path / name).write_text(f"content of {name}")
    store = Store(tmp_path / "data root", definition(tmp_path))
    return PartitionJob(
        study=store.study,
        keys=KEYS,
        partitions=("0000-0001",),
        fingerprints={str(key): store.lineage.fingerprint(key) for key in KEYS},
        digests=store.lineage.named_files(),
        root=store.root,
        model=ModelConfiguration("org/model", device="cpu"),
    )


Elsewhere = Callable[..., str]


@pytest.fixture
def elsewhere(tmp_path: Path) -> Elsewhere:
    """What another process prints, in which sets and dictionaries are hashed otherwise."""

    def run(code: str, *arguments: str, seed: int = 0, packages: Path | None = None) -> str:
        path = str(packages or Path(gradsim.__file__).parents[1])
        process = subprocess.run(
            [sys.executable, "-c", code, *arguments],
            env={**os.environ, "PYTHONHASHSEED": str(seed), "PYTHONPATH": path},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=True,
        )
        return process.stdout.strip()

    return run


class TestIdentity:
    def test_it_names_files_and_jobs(self, job: PartitionJob) -> None:
        assert len(job.identity) == 16
        assert job.identity.isalnum()

    @pytest.mark.slow
    def test_a_job_has_it_wherever_it_is_read(self, job: PartitionJob, elsewhere: Elsewhere, tmp_path: Path) -> None:
        path = tmp_path / "job.json"
        path.write_text(job.model_dump_json())
        code = (
            "import sys; from pathlib import Path; from gradsim.partition_job import PartitionJob; "
            "print(PartitionJob.model_validate_json(Path(sys.argv[1]).read_text()).identity)"
        )
        assert {elsewhere(code, str(path), seed=seed) for seed in (1, 2)} == {job.identity}

    @pytest.mark.slow
    def test_a_job_has_it_whenever_it_is_made(self, job: PartitionJob, elsewhere: Elsewhere, tmp_path: Path) -> None:
        """Of the same study and tables, and the data that are stored."""
        store = job.store()
        for name, setting, partition in [
            ("samples", None, None),
            ("model", None, None),
            ("tokenized", None, None),
            ("queries", "dropped", "0000-0001"),
            ("tokenized", "dropped", "0000-0001"),
            ("candidates", "dropped", "0000-0001"),
        ]:
            store.write(store.lineage.key(name, setting), SCHEMAS[name].empty(), partition)
        sent = job.of_what_is_stored(store)
        assert sent.identity != job.identity
        path = tmp_path / "study.json"
        path.write_text(job.study.model_dump_json())
        code = """
import sys
from pathlib import Path
from gradsim.partition_job import PartitionJob
from gradsim.study import ModelConfiguration, Study
from gradsim.tables import Store

store = Store(Path(sys.argv[2]), Study.model_validate_json(Path(sys.argv[1]).read_text()))
keys = tuple(store.lineage.key(table, "dropped") for table in ("dot_products", "query_self"))
job = PartitionJob(
    study=store.study,
    keys=keys,
    partitions=("0000-0001",),
    fingerprints={str(key): store.lineage.fingerprint(key) for key in keys},
    digests=store.lineage.named_files(),
    root=store.root,
    model=ModelConfiguration("org/model", device="cpu"),
)
print(job.of_what_is_stored(store).identity)
"""
        found = {elsewhere(code, str(path), str(job.root), seed=seed) for seed in (1, 2)}
        assert found == {sent.identity}

    @pytest.mark.parametrize(
        "change",
        [
            {"partitions": ("0002-0003",)},
            {"partitions": ("0000-0001", "0002-0003")},
            {"keys": KEYS[:1]},
            {"keys": tuple(TableKey("mine", table, "read") for table in TABLES)},
            {"fingerprints": {str(key): "0123456789abcdef" for key in KEYS}},
            {"versions": {"mine/samples": "0123456789abcdef"}},
            {"digests": {}},
            {"root": Path("/another")},
            {"model": ModelConfiguration("org/model", device="cuda")},
            {"model": ModelConfiguration("org/model", device="cpu", revision="another")},
            {"memory_budget": 1 << 30},
            {"force": True},
            {"code": "0.0.0+00000000"},
        ],
        ids=lambda change: next(iter(change)),
    )
    def test_another_job_has_another(self, job: PartitionJob, change: dict[str, Any]) -> None:
        assert job.model_copy(update=change).identity != job.identity

    def test_another_study_has_another(self, job: PartitionJob, tmp_path: Path) -> None:
        other = definition(tmp_path, seed=43)
        assert job.model_copy(update={"study": other}).identity != job.identity


def test_another_code_than_the_senders_is_refused(job: PartitionJob) -> None:
    with pytest.raises(TableError) as caught:
        job.model_copy(update={"code": "0.0.0+00000000"}).check(job.store())
    assert str(caught.value) == (
        f"the job was sent by gradsim 0.0.0+00000000, but {code_version()} is installed here; "
        "install the sender's version: gradsim cluster install"
    )


class TestFilesOfTheStudy:
    """A node has none of them."""

    def test_a_job_whose_files_are_not_there_knows_what_was_in_them(self, job: PartitionJob, tmp_path: Path) -> None:
        sent = job.fingerprints
        for path in job.digests:
            path.unlink()
        read = PartitionJob.model_validate_json(job.model_dump_json())
        assert {str(key): read.store().lineage.fingerprint(key) for key in KEYS} == sent
        read.check(read.store())
        with pytest.raises(StudyError, match=r"originals\.jsonl"):
            read.model_copy(update={"digests": {}}).check(Store(tmp_path, job.study))

    def test_the_senders_files_count_and_not_those_of_the_same_name(self, job: PartitionJob) -> None:
        for path in job.digests:
            path.write_text("another")
        job.check(job.store())

    def test_all_of_them_are_told(self, job: PartitionJob, tmp_path: Path) -> None:
        assert set(job.digests) == {tmp_path / "originals.jsonl", tmp_path / "read.jsonl"}


class TestInputsAndOutputs:
    def test_of_gradients(self, job: PartitionJob) -> None:
        both = job.model_copy(update={"partitions": ("0000-0001", "0002-0003")})
        shared = {("mine/samples", None), ("mine/model", None), ("mine/tokenized", None)}
        expected = {
            (f"mine/dropped/{table}", partition)
            for table in ("tokenized", "candidates")
            for partition in both.partitions
        }
        found = {(str(key), partition) for key, partition in both.inputs(both.store())}
        assert found == shared | expected
        assert [(str(key), partition) for key, partition in both.outputs] == [
            (f"mine/dropped/{table}", partition) for table in TABLES for partition in both.partitions
        ]

    def test_of_an_audit(self, job: PartitionJob) -> None:
        audit = job.model_copy(
            update={"keys": (TableKey("mine", "gradient_audit", "dropped", "analysis"),), "partitions": (None,)}
        )
        names = {str(key) for key, _ in audit.inputs(audit.store())}
        assert {"mine/dropped/results/dot_products", "mine/tokenized", "mine/model", "mine/samples"} <= names
        assert [(str(key), partition) for key, partition in audit.outputs] == [
            ("mine/dropped/analysis/gradient_audit", None)
        ]

    def test_of_measuring_rates(self, job: PartitionJob) -> None:
        rates = job.model_copy(update={"keys": (TableKey("mine", "rates"),), "partitions": (None,)})
        assert {str(key) for key, _ in rates.inputs(rates.store())} == {"mine/samples", "mine/model", "mine/tokenized"}
        assert rates.outputs == []
        assert rates.work(rates.store()) == {None: [TableKey("mine", "rates")]}


class TestCodeVersion:
    @pytest.fixture
    def copy(self, tmp_path: Path) -> Path:
        """The package elsewhere."""
        folder = tmp_path / "elsewhere"
        package = Path(gradsim.__file__).parent
        shutil.copytree(package, folder / "gradsim", ignore=shutil.ignore_patterns("__pycache__"))
        return folder

    PRINT = "from gradsim.partition_job import code_version; print(code_version())"

    def test_a_copy_of_the_code_has_the_same(self, copy: Path, elsewhere: Elsewhere) -> None:
        assert code_version().startswith(f"{gradsim.__version__}+")
        (copy / "gradsim" / "notes.txt").write_text("no code")
        assert elsewhere(self.PRINT, packages=copy) == code_version()

    @pytest.mark.parametrize("change", ["edit", "add", "rename", "remove"])
    def test_any_change_of_the_code_gives_another(self, copy: Path, elsewhere: Elsewhere, change: str) -> None:
        source = copy / "gradsim" / "plots" / "grid.py"
        match change:
            case "edit":
                source.write_text(source.read_text() + "\n")
            case "add":
                source.with_name("more.py").touch()
            case "rename":
                source.rename(source.with_name("audit_.py"))
            case "remove":
                source.unlink()
        assert elsewhere(self.PRINT, packages=copy) != code_version()

    def test_it_is_told_with_the_job(self, job: PartitionJob) -> None:
        assert json.loads(job.model_dump_json())["code"] == code_version()
