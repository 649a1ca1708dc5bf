"""What a user sees of bad input: one line that says what is wrong and how to fix it, and nothing half-done."""

import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from gradsim.environment import Environment
from gradsim.study import load_study
from gradsim.tables import SCHEMAS, Store
from gradsim_assets import cli, terminal
from gradsim_assets.launch.launching import RunError, run_launches
from gradsim_assets.launch.targets import Launch
from gradsim_assets_tests.studies import study_text

NOBODY = 65534
Rows = list[dict[str, Any]]
# What makes `samples`, `model` and what is made of them alone; a line each when it is done.
FIRST_RUN = "run 1 of 3  tiny/samples, tiny/model, tiny/tokenized, tiny/projections, tiny/analysis/parameters_per_layer"


def samples(number: int = 4) -> Rows:
    return [
        {
            "id": f"s{each}",
            "messages": [
                {"role": "user", "content": f"How do I wash {each} shirts?"},
                {"role": "assistant", "content": f"Soak them for {each} minutes, then rinse."},
            ],
        }
        for each in range(number)
    ]


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model with a context of 64 tokens."""
    from gradsim.dataset.samples import SAMPLES_SCHEMA
    from gradsim.models import train_reference_model

    rows = pl.DataFrame(samples(), schema=SAMPLES_SCHEMA)
    folder = tmp_path_factory.mktemp("models") / "tiny model"
    return train_reference_model(
        rows, folder, layers=1, hidden_size=16, heads=2, vocabulary=300, positions=64, steps=1
    ).folder


class Machine:
    """Folders for studies and data, and the command line in this process."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
        self.studies, self.data = folder / "studies", folder / "data"
        self._capsys, self._monkeypatch = capsys, monkeypatch
        self.studies.mkdir()

    def write(self, name: str, rows: Rows) -> Path:
        path = self.studies / name
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        return path

    def study(self, **changes: Any) -> Path:
        """Writes the study `tiny`; `changes` are keys of its file."""
        definition = {
            "dataset": {"path": "originals.jsonl"},
            "samples": 4,
            "model": {"reference": {"layers": 1, "hidden_size": 16, "heads": 2, "vocabulary": 300, "steps": 1}},
            "settings": {"rewritten": {"method": "file", "path": "queries.jsonl"}},
            "top_k": 2,
            "partition_size": 2,
        }
        path = self.studies / "tiny.yaml"
        path.write_text(study_text({**definition, **changes}), encoding="utf-8")
        return path

    def refuses(self, *arguments: str) -> tuple[list[str], str]:
        """What a command that fails prints: the lines before, and its error."""
        self._monkeypatch.setattr(sys, "argv", ["gradsim", *arguments])
        self._capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            cli.main()
        assert ended.value.code == 1
        *before, last = [line for line in self._capsys.readouterr().out.splitlines() if line.strip()]
        assert not list(self.data.rglob("*.partial"))
        return before, last

    @property
    def files(self) -> set[str]:
        """Names of what is stored."""
        return {str(path.relative_to(self.data)) for path in self.data.rglob("*.parquet")}

    @property
    def store(self) -> Store:
        environment = Environment(data=self.data, studies=self.studies)
        return Store(self.data, load_study("tiny", environment))

    def fill(self) -> Store:
        """Tables as a run leaves them, but without rows: they are there, and fresh."""
        store = self.store
        for node in store.lineage:
            for partition in store.partitions(node.key) if node.key.name != "report" else ():
                frame = SCHEMAS[node.key.name].empty()
                if node.key.name == "samples":
                    frame = frame.clear(4).with_columns(pl.Series("id", [row["id"] for row in samples()]))
                store.write(node.key, frame, partition)
        return store


@pytest.fixture(scope="module")
def dagster_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of Dagster's instance, which takes longer to make than most runs here."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture
def machine(
    tmp_path: Path, dagster_home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Machine]:
    """A machine with the data files of four samples, and the study `tiny` of them."""
    before = dict(os.environ)
    for name in [name for name in os.environ if name.startswith(("MT_", "GRADSIM_", "HF_"))]:
        del os.environ[name]
    variables = {
        "GRADSIM_STUDIES": tmp_path / "studies",
        "GRADSIM_DATA": tmp_path / "data",
        "DAGSTER_HOME": dagster_home,
        "MT_DEVICE": "cpu",
        "HF_HUB_OFFLINE": "1",
    }
    os.environ.update({name: str(value) for name, value in variables.items()})
    monkeypatch.setattr(terminal.console, "width", 400)
    machine = Machine(tmp_path, capsys, monkeypatch)
    machine.write("originals.jsonl", samples())
    machine.write("queries.jsonl", samples())
    machine.study()
    yield machine
    os.environ.clear()
    os.environ.update(before)


def with_change(change: Callable[[Rows], Any]) -> Rows:
    rows = samples()
    change(rows)
    return rows


# Some of what gradsim/dataset/test_samples.py has refused: all of it takes the same way to the user.
DATASETS: dict[str, tuple[Rows, str]] = {
    "duplicate ids": (
        with_change(lambda rows: rows[2].update(id="s1")),
        "rows 2 and 3 have the same id 's1'; give every sample its own",
    ),
    "empty answer": (
        with_change(lambda rows: rows[2]["messages"][1].update(content=" \n")),
        "sample 's2' has an empty answer; fix or remove it",
    ),
    "too few samples": (samples(3), "holds 3 samples but the study states 4; set `samples: 3` in the study file"),
}


@pytest.mark.parametrize(("rows", "complaint"), DATASETS.values(), ids=DATASETS.keys())
def test_samples_that_no_study_can_use(machine: Machine, rows: Rows, complaint: str) -> None:
    path = machine.write("originals.jsonl", rows)
    before, error = machine.refuses("run", "tiny")
    assert error == f"error: tiny__samples: {path}: {complaint}"
    assert before == [FIRST_RUN]
    assert machine.files == set()


def test_a_dataset_file_that_is_damaged(machine: Machine) -> None:
    path = machine.studies / "originals.parquet"
    path.write_bytes(b"PAR1 damaged PAR1")
    machine.study(dataset={"path": path.name})
    _, error = machine.refuses("run", "tiny")
    assert error.startswith(f"error: tiny__samples: {path}: not a readable Parquet file (")
    assert machine.files == set()


def test_a_dataset_file_that_is_not_there(machine: Machine) -> None:
    path = machine.studies / "originals.jsonl"
    path.unlink()
    _, error = machine.refuses("run", "tiny")
    assert error == (
        f"error: tiny__samples: {path}: cannot be read (No such file or directory); correct the path in the study file"
    )


def test_a_dataset_file_that_is_gone_since(machine: Machine) -> None:
    machine.fill()
    path = machine.studies / "originals.jsonl"
    path.unlink()
    complaint = f"error: {path}: cannot be read (No such file or directory); correct the path in the study file"
    assert machine.refuses("status", "tiny") == ([], complaint)


def test_a_sample_longer_than_the_context(machine: Machine, model_folder: Path) -> None:
    """What was finished before it is kept."""
    long = with_change(lambda rows: rows[3]["messages"][1].update(content="and rinse " * 80))
    machine.write("originals.jsonl", long)
    machine.study(model={"name": str(model_folder)}, chat={"template": "tulu"})
    before, error = machine.refuses("run", "tiny")
    assert error.startswith("error: tiny__tokenized: sample 's3' has ")
    assert error.endswith(
        " tokens but the model's context length is 64; "
        "set `truncate` in the study file, or `on_long_sample` to exclude or keep (now error)"
    )
    assert {"tiny/samples.parquet", "tiny/model.parquet"} <= machine.files
    assert "tiny/tokenized.parquet" not in machine.files
    assert before[0] == FIRST_RUN


def test_a_query_without_its_original(machine: Machine, model_folder: Path) -> None:
    path = machine.write("queries.jsonl", samples(5))
    machine.study(model={"name": str(model_folder)}, chat={"template": "tulu"})
    _, error = machine.refuses("run", "tiny")
    assert error == (
        f"error: tiny__rewritten__queries: {path}: query 's4' has no original; "
        "remove it or give it the id of the original it was made from"
    )
    assert machine.files == {
        "tiny/samples.parquet",
        "tiny/model.parquet",
        "tiny/tokenized.parquet",
        "tiny/projections.parquet",
        "tiny/analysis/parameters_per_layer.parquet",
    }


def test_an_unknown_model(machine: Machine) -> None:
    machine.study(model={"name": "no/model"})
    before, error = machine.refuses("run", "tiny")
    assert error == (
        "error: tiny__model: model no/model: not a local folder, and not available from the Hub "
        "(no network, and it is not in the cache); "
        "check its spelling, revision and the network, set HF_TOKEN if it is gated, or download it beforehand"
    )
    assert machine.files == {"tiny/samples.parquet"}
    assert before == [FIRST_RUN, "  ✓ tiny/samples  4 rows"]


ARGUMENTS: dict[str, tuple[tuple[str, ...], str]] = {
    "setting": (("--setting", "paraphrased"), "study 'tiny' has no setting 'paraphrased'; it has: rewritten"),
    "partition": (
        ("--partition", "0000-0099"),
        "no partition '0000-0099': there are 2, 0000-0001 to 0002-0003; choose one of those",
    ),
    "positions": (
        ("--partition-start", "1"),
        "no partitions from 1 to 4 (end exclusive): choose among the borders 0, 2, 4",
    ),
    "positions beyond the end": (
        ("--partition-start", "2", "--partition-end", "100"),
        "no partitions from 2 to 100 (end exclusive): choose among the borders 0, 2, 4",
    ),
    "both": (
        ("--partition", "0000-0001", "--partition-end", "2"),
        "--partition cannot be combined with --partition-start/--partition-end; use one of them",
    ),
}


@pytest.mark.parametrize(("arguments", "complaint"), ARGUMENTS.values(), ids=ARGUMENTS.keys())
def test_arguments_that_do_not_fit_the_study(machine: Machine, arguments: tuple[str, ...], complaint: str) -> None:
    assert machine.refuses("run", "tiny", *arguments) == ([], f"error: {complaint}")
    assert not machine.data.exists()


def test_commands_name_a_study_that_is_not_there(machine: Machine) -> None:
    complaint = f"error: no study 'tinny' in {machine.studies}; did you mean 'tiny'?"
    for command in ("run", "combine", "report", "status"):
        assert machine.refuses(command, "tinny") == ([], complaint)
    assert machine.refuses("prepare", "tinny", "both") == ([], complaint)


def test_a_study_file_with_an_unknown_key(machine: Machine) -> None:
    path = machine.study(top_K=3)
    assert machine.refuses("run", "tiny") == ([], f"error: {path}: unknown key 'top_K'; did you mean 'top_k'?")


def test_a_variable_that_holds_nonsense(machine: Machine) -> None:
    os.environ["MT_SAMPLE_SIZE"] = "all"
    complaint = "error: MT_SAMPLE_SIZE='all' in the environment or .env should be a valid integer; correct or unset it"
    assert machine.refuses("run", "tiny") == ([], complaint)


def test_a_device_that_is_not_there(machine: Machine) -> None:
    """It is said before any work starts."""
    import torch

    there = ["cpu", *(f"cuda:{index}" for index in range(torch.cuda.device_count()))]
    os.environ["MT_DEVICE"] = "cuda:99"
    complaint = (
        f"error: device 'cuda:99' is not available, only {', '.join(there)}; set MT_DEVICE to one of these, or to auto"
    )
    assert machine.refuses("run", "tiny") == ([], complaint)
    assert not machine.data.exists()


@pytest.mark.parametrize("command", ["combine", "report"])
def test_a_damaged_partition(machine: Machine, command: str) -> None:
    """Commands that only read say what to run; `gradsim run` makes it again."""
    store = machine.fill()
    key = store.lineage.key("query_self", "rewritten")
    path = store.path(key, "0002-0003")
    path.write_bytes(path.read_bytes()[:-9])
    stored = machine.files
    before, error = machine.refuses(command, "tiny")
    assert error == (
        f"error: {key}: 1 partitions are missing or stale, 0002-0003 first; compute them: gradsim run tiny"
    )
    assert before == []
    assert machine.files == stored


def launched(machine: Machine, *tables: str) -> str:
    """Why a launch of combined tables fails that looks at no state first, as one from the web UI."""
    store = machine.store
    keys = tuple(store.lineage.key(table, "rewritten", "results") for table in tables)
    environment = Environment(data=machine.data, studies=machine.studies)
    with pytest.raises(RunError) as failed:
        run_launches(store.study, [Launch(keys)], environment)
    return str(failed.value)


def test_partitions_of_two_definitions(machine: Machine) -> None:
    first = machine.fill()
    key = first.lineage.key("query_self", "rewritten")
    combined = first.path(first.lineage.key("query_self", "rewritten", "results")).read_bytes()
    machine.study(top_k=1)
    second = machine.store
    second.write(key, SCHEMAS["query_self"].empty(), "0002-0003")
    old, new = (store.lineage.fingerprint(key) for store in (first, second))
    assert launched(machine, "query_self") == (
        f"tiny__rewritten__results: {first.path(key, '0002-0003')} has fingerprint {new}, "
        f"{first.path(key, '0000-0001')} has {old}: "
        "they were made from different definitions of the study; run the stale one again"
    )
    assert first.path(first.lineage.key("query_self", "rewritten", "results")).read_bytes() == combined


def test_a_damaged_partition_in_a_launch(machine: Machine) -> None:
    store = machine.fill()
    path = store.path(store.lineage.key("query_self", "rewritten"), "0002-0003")
    path.write_bytes(b"")
    message = launched(machine, "query_self")
    assert message.startswith(f"tiny__rewritten__results: {path}: not a readable table (")
    assert message.endswith("; delete it and run again")


@contextmanager
def ordinary_user() -> Iterator[None]:
    """Root may write everywhere, so for this block it is somebody else."""
    root = os.geteuid() == 0
    if root:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)


def test_a_data_folder_that_is_read_only(machine: Machine) -> None:
    machine.write("originals.jsonl", [])
    machine.refuses("run", "tiny")  # so that all is imported: others may not read root's Python
    with tempfile.TemporaryDirectory() as folder:  # which others may enter, unlike pytest's
        root = Path(folder)
        root.chmod(0o755)
        machine.studies, machine.data = root / "studies", root / "data"
        machine.studies.mkdir()
        machine.write("originals.jsonl", samples())
        machine.write("queries.jsonl", samples())
        machine.study()
        (root / "home").mkdir()
        (root / "home").chmod(0o777)
        machine.data.mkdir()
        machine.data.chmod(0o555)
        folders = {"GRADSIM_STUDIES": "studies", "GRADSIM_DATA": "data", "DAGSTER_HOME": "home"}
        os.environ.update({variable: str(root / name) for variable, name in folders.items()})
        with ordinary_user():
            before, error = machine.refuses("run", "tiny")
        assert error == (
            f"error: tiny__samples: {root / 'data/tiny'}: cannot be written (Permission denied); "
            "set GRADSIM_DATA to a folder that you can write"
        )
        assert before == [FIRST_RUN]
        assert list(machine.data.iterdir()) == []
        machine.data.chmod(0o755)
