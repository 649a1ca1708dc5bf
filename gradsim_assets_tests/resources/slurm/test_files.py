"""A job's files, there and back, and waiting until a file system shows them."""

import threading
from pathlib import Path, PurePosixPath

import pytest

from gradsim.errors import ClusterError
from gradsim.partition_job import PartitionJob
from gradsim.study import ModelConfiguration
from gradsim.tables import SCHEMAS, TableKey
from resources.slurm import files as module
from resources.slurm.connection import Connection
from resources.slurm.files import RemoteFiles, input_files, wait_until_seen

SETTING, TABLES, KEYS = "word_dropout", ("dot_products", "query_self"), ("0000-0001", "0002-0003")


@pytest.fixture
def job(study, tmp_path):
    """A job whose inputs are there, of another partition, too."""
    (tmp_path / "originals.jsonl").touch()
    job = PartitionJob(
        study=study,
        keys=tuple(TableKey("tiny", table, SETTING) for table in TABLES),
        partitions=KEYS[:1],
        fingerprints={},
        root=tmp_path / "data root",
        model=ModelConfiguration("a model"),
    )
    store = job.store()
    for name in ("samples", "model", "tokenized"):
        write(store, store.lineage.key(name))
    for name in ("queries", "tokenized", "candidates"):
        for partition in KEYS:
            write(store, store.lineage.key(name, SETTING), partition)
    (store.model_folder / "deep").mkdir(parents=True)
    (store.model_folder / "weights.bin").write_bytes(bytes(range(256)) * 5000)
    (store.model_folder / "deep" / "tokenizer.json").write_text("{}")
    return job


def write(store, key, partition=None, rows=0):
    store.write(key, SCHEMAS[key.name].empty().clear(rows), partition)


def write_outputs(job):
    for key, partition in job.outputs:
        write(job.store(), key, partition)


INPUTS = {
    "tiny/samples.parquet",
    "tiny/model.parquet",
    "tiny/tokenized.parquet",
    "tiny/word_dropout/tokenized/0000-0001.parquet",
    "tiny/word_dropout/candidates/0000-0001.parquet",
    "tiny/model/weights.bin",
    "tiny/model/deep/tokenizer.json",
}


def relative(paths, root):
    return {path.relative_to(root).as_posix() for path in paths}


def test_inputs_are_the_tables_that_a_job_reads_and_the_model_that_the_study_made(job):
    files = list(input_files(job))
    assert len(files) == len(INPUTS)
    assert relative(files, job.root) == INPUTS
    assert all(path.is_file() for path in files)


def test_a_job_that_measures_reads_the_samples_and_the_model(job):
    measuring = job.model_copy(update={"keys": (TableKey("tiny", "rates"),), "partitions": (None,)})
    expected = {name for name in INPUTS if SETTING not in name}
    assert relative(input_files(measuring), job.root) == expected


# -- a shared file system --------------------------------------------------------------------


SITE = PurePosixPath("/cluster/data")


def not_seen(job, state, table="dot_products"):
    path = job.root / f"tiny/word_dropout/{table}/0000-0001.parquet"
    return (
        f"{path} is {state}, although the job reports that it wrote it: "
        f"SLURM_DATA (/cluster/data) must be the cluster's path of GRADSIM_DATA ({job.root})"
    )


def test_what_is_there_is_not_waited_for(job, monkeypatch):
    monkeypatch.setattr(module, "SECONDS_TO_BE_SEEN", -1)
    write_outputs(job)
    wait_until_seen(job, SITE)


def test_what_comes_late_is_waited_for(job, monkeypatch):
    monkeypatch.setattr(module, "SECONDS_TO_BE_SEEN", 60)
    writer = threading.Timer(0.2, write_outputs, [job])
    writer.start()
    wait_until_seen(job, SITE)
    writer.join()
    assert job.work(job.store()) == {}


def test_what_never_comes_is_an_error(job, monkeypatch):
    monkeypatch.setattr(module, "SECONDS_TO_BE_SEEN", 0)
    write_outputs(job)
    (job.root / "tiny/word_dropout/query_self/0000-0001.parquet").unlink()
    with pytest.raises(ClusterError) as caught:
        wait_until_seen(job, SITE)
    assert str(caught.value) == not_seen(job, "missing", "query_self")


def test_a_table_of_other_inputs_is_an_error(job, monkeypatch):
    """As of another data root: SLURM_DATA names it."""
    monkeypatch.setattr(module, "SECONDS_TO_BE_SEEN", 0)
    write_outputs(job)
    store = job.store()
    key = store.lineage.key("candidates", SETTING)
    write(store, key, KEYS[0], rows=1)
    with pytest.raises(ClusterError) as caught:
        wait_until_seen(job, SITE)
    assert str(caught.value) == not_seen(job, "stale")


def test_a_broken_table_is_not_waited_for(job, monkeypatch):
    monkeypatch.setattr(module, "SECONDS_TO_BE_SEEN", 1e9)
    write_outputs(job)
    (job.root / "tiny/word_dropout/dot_products/0000-0001.parquet").write_bytes(b"half")
    with pytest.raises(ClusterError) as caught:
        wait_until_seen(job, SITE)
    assert str(caught.value) == not_seen(job, "corrupt")


# -- copies ----------------------------------------------------------------------------------


@pytest.fixture
def there(tmp_path):
    """The data root of jobs on the cluster."""
    return tmp_path / "remote base" / "data"


@pytest.fixture
def files(stand_in, site_of, there):
    """Copies through an ssh that runs commands here."""
    stand_in("ssh", 'exec bash -c "${@: -1}"')
    site = site_of(SLURM_REMOTE_BASE=str(there.parent))
    return RemoteFiles(Connection(site, print), site.base / "data")


def contents(root, names):
    return {name: (root / name).read_bytes() for name in names}


def test_inputs_are_sent_once_and_again_where_they_differ(job, files, there):
    said: list[str] = []
    files.send_inputs(job, said.append)
    assert contents(there, INPUTS) == contents(job.root, INPUTS)
    assert relative((path for path in there.rglob("*") if path.is_file()), there) == INPUTS
    files.send_inputs(job, said.append)
    (there / "tiny/model/weights.bin").write_bytes(b"half")
    (there / "tiny/samples.parquet").unlink()
    files.send_inputs(job, said.append)
    assert contents(there, INPUTS) == contents(job.root, INPUTS)
    assert said == [f"input files copied to {there}: {count} of 7" for count in (7, 0, 2)]


def test_a_cluster_that_cannot_be_written_is_an_error(job, stand_in, site_of):
    stand_in("ssh", 'exec bash -c "${@: -1}"')
    site = site_of(SLURM_REMOTE_BASE="/proc/gradsim")
    with pytest.raises(
        ClusterError, match=r"^/proc/gradsim/data/tiny/.*: cannot be written on the cluster \(mkdir: .*"
    ):
        RemoteFiles(Connection(site, print), site.base / "data").send_inputs(job, print)


def computed_there(job, there):
    """What a job does on the cluster."""
    write_outputs(job.model_copy(update={"root": there}))
    return [f"tiny/word_dropout/{table}/0000-0001.parquet" for table in TABLES]


def test_results_come_back_where_they_are_not_here_yet(job, files, there):
    said: list[str] = []
    files.send_inputs(job, said.append)
    written = computed_there(job, there)
    files.fetch_results(job, said.append)
    assert contents(job.root, written) == contents(there, written)
    assert job.work(job.store()) == {}
    (job.root / written[0]).write_bytes(b"half")
    files.fetch_results(job, said.append)
    files.fetch_results(job, said.append)
    assert contents(job.root, written) == contents(there, written)
    assert said[1:] == [f"results copied from {there}: 2", f"results copied from {there}: 1"]


def test_all_results_of_a_forced_job_come_back(job, files, there):
    said: list[str] = []
    files.send_inputs(job, said.append)
    computed_there(job, there)
    for _ in range(2):
        files.fetch_results(job.model_copy(update={"force": True}), said.append)
    assert said[1:] == [f"results copied from {there}: 2"] * 2


def test_a_trained_model_comes_back_before_its_table(study, files, there, tmp_path):
    """Its weights are not sent to the cluster, where they would be those of the training before."""
    key, root = TableKey("tiny", "model"), tmp_path / "data root"
    (tmp_path / "originals.jsonl").touch()
    job = PartitionJob(
        study=study, keys=(key,), partitions=(None,), fingerprints={}, root=root, model=ModelConfiguration("a model")
    )
    store, remote = job.store(), job.model_copy(update={"root": there}).store()
    write(store, store.lineage.key("samples"))
    store.model_folder.mkdir()
    (store.model_folder / "old.safetensors").touch()
    files.send_inputs(job, print)
    assert relative(there.rglob("*.*"), there) == {"tiny/samples.parquet"}
    with pytest.raises(ClusterError, match=r"/tiny/model: the job did not write it; run it again$"):
        files.fetch_results(job, print)

    (remote.model_folder / "deep").mkdir(parents=True)
    (remote.model_folder / "model.safetensors").write_bytes(bytes(range(256)))
    (remote.model_folder / "deep" / "name with spaces.json").write_text("{}")
    write(remote, key)
    files.fetch_results(job, print)
    names = {"tiny/model/model.safetensors", "tiny/model/deep/name with spaces.json", "tiny/model.parquet"}
    assert contents(root, names) == contents(there, names)
    assert relative((path for path in store.model_folder.rglob("*") if path.is_file()), root) == names - {
        "tiny/model.parquet"
    }
    assert job.work(store) == {}


def test_a_result_that_was_not_written_is_an_error(job, files, there):
    files.send_inputs(job, print)
    written = computed_there(job, there)
    (there / written[1]).unlink()
    with pytest.raises(ClusterError) as caught:
        files.fetch_results(job, print)
    assert str(caught.value) == f"{there / written[1]}: the job did not write it; run it again"


def test_a_result_that_comes_broken_is_an_error_and_leaves_nothing(job, files, there, stand_in):
    files.send_inputs(job, print)
    written = computed_there(job, there)
    # Only what reads a file gets something else.
    told = "$(echo ${@: -1} | grep -oE '[A-Za-z0-9+/=]{12,}' | head -n 1 | base64 -d 2>/dev/null)"
    stand_in("ssh", f'[[ "{told}" == "cat "* ]] && {{ echo half; exit 0; }}; exec bash -c "${{@: -1}}"')
    with pytest.raises(ClusterError) as caught:
        files.fetch_results(job, print)
    assert str(caught.value).startswith(f"{there / written[0]}: the copy has another checksum; run it again, and")
    assert not list(Path(job.root).glob("tiny/word_dropout/dot_products/*"))
