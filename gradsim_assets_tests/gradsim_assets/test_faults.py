"""Whatever may happen while a study is computed: kills, lost files, absent devices, losses that are no number."""

import signal
from contextlib import suppress

import dagster as dg
import polars as pl
import psutil
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from gradsim.tables import State, read_provenance
from gradsim.tables.lineage import DOT_TABLES, GRADIENT_TABLES
from gradsim_assets_tests.programs import has_ended
from gradsim_assets_tests.workplace import Workplace

pytestmark = pytest.mark.slow

DOTS = ("run", "tiny", "--computation", "dot-product")
FIRST, LAST = "0000-0007", "0032-0039"


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The dots of a study that takes seconds: long texts, each compared with all; and all that they need."""
    place = Workplace(tmp_path_factory.mktemp("undisturbed"))
    place.write_rows("originals.jsonl", place.rows(40, repeat=45))
    model = {"reference": {"layers": 2, "hidden_size": 32, "heads": 2, "vocabulary": 300, "steps": 1}}
    place.write_study(model=model, top_k="all", partition_size=8)
    place.gradsim(*DOTS)
    return place


@pytest.fixture
def slow(undisturbed, tmp_path):
    """The same without its dots."""
    place = undisturbed.copy(tmp_path)
    place.delete(*(f"tiny/word_dropout/{table}/*" for table in DOT_TABLES))
    return place


def paths(place, partition):
    return [place.data / "tiny/word_dropout" / table / f"{partition}.parquet" for table in DOT_TABLES]


def has(place, partition):
    return all(path.exists() for path in paths(place, partition))


def job_of(command):
    """The partition job that a command has started, which its job server has forked; None before."""
    with suppress(psutil.NoSuchProcess):  # a child may end meanwhile
        for server in psutil.Process(command.pid).children():
            if "resources.job_server" in server.cmdline():
                return next(iter(server.children()), None)
    return None


def start_until(place, condition, wait_until):
    """A running command whose job has come to a condition, and the job."""
    command = place.start("gradsim", *DOTS)
    wait_until(lambda: job_of(command) is not None, "the job's start")
    job = job_of(command)
    wait_until(condition, "the job's first results", pause=0.002)
    return command, job


def stored(place):
    """What a reader's glob finds of the dots: file -> when it was written. Every file is whole."""
    found = {path: path.stat().st_mtime_ns for path in place.data.glob("tiny/word_dropout/*/*.parquet")}
    return {path: time for path, time in found.items() if path.parent.name in DOT_TABLES and len(pl.read_parquet(path))}


def test_a_killed_job_and_a_killed_command_lose_nothing_that_was_finished(slow, undisturbed, wait_until):
    # The job is killed in the middle of its work.
    command, job = start_until(slow, lambda: has(slow, FIRST), wait_until)
    job.kill()
    output, _ = command.communicate(timeout=60)
    assert command.returncode == 1
    assert "which usually means that the system ran out of memory: limit the memory for gradients" in output
    assert "Traceback" not in output
    after_first = stored(slow)
    assert set(paths(slow, FIRST)) <= set(after_first)
    assert not set(paths(slow, LAST)) & set(after_first)

    # The command is killed; its job must not go on alone.
    command, job = start_until(slow, lambda: True, wait_until)
    command.kill()
    command.communicate()
    wait_until(lambda: has_ended(job.pid), "the job's end", seconds=20)
    assert stored(slow) == after_first
    assert [run.status for run in slow.runs()] == [dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.STARTED]

    # Nothing happens: what is missing is computed, and only that.
    slow.gradsim(*DOTS)
    assert after_first.items() <= stored(slow).items()
    killed_job, killed_command, *others = slow.runs()
    assert {killed_job.status, killed_command.status} == {dg.DagsterRunStatus.FAILURE}
    assert {other.status for other in others} == {dg.DagsterRunStatus.SUCCESS}
    assert_same_dots(slow.store(), undisturbed.store())


def assert_same_dots(found, expected):
    key = found.lineage.key("dot_products", "word_dropout")
    selves = {side: expected.read(expected.lineage.key(side, "word_dropout")) for side in DOT_TABLES[1:]}
    norms = {side: rows.unique(rows.columns[:2], keep="first") for side, rows in selves.items()}
    both = (
        expected.read(key)
        .with_columns(found=found.read(key)["dot"])
        .join(norms["query_self"], on=["query_id", "layer"])
        .join(norms["original_self"], on=["original_id", "layer"], suffix="_original")
    )
    allowed = 1e-5 * (pl.col("self_dot") * pl.col("self_dot_original")).sqrt()
    assert both.height == 40 * 40 * len(expected.layers.categories)
    assert both.filter((pl.col("found") - pl.col("dot")).abs() > allowed).is_empty()


def test_an_interrupted_command_ends_its_job_and_its_run(slow, wait_until):
    command, job = start_until(slow, lambda: has(slow, FIRST), wait_until)
    command.send_signal(signal.SIGINT)
    output, _ = command.communicate(timeout=60)
    assert command.returncode not in (0, None)
    assert "Traceback" not in output
    assert not job.is_running()
    assert "interrupted; finished work is kept, run again to continue" in output
    assert [run.status for run in slow.runs()] == [dg.DagsterRunStatus.FAILURE]
    assert set(paths(slow, FIRST)) <= set(stored(slow))


def test_a_device_that_is_not_there_is_refused_before_any_work(workplace):
    output = workplace.gradsim("run", "tiny", fails=True, MT_DEVICE="cuda:99")
    assert output.startswith("error: ")
    assert "cuda:99" in output
    assert len(output.strip().splitlines()) == 1
    assert not workplace.data.exists()


def test_a_model_that_lost_its_weights_is_trained_again(computed):
    before = versions(computed)
    for table in GRADIENT_TABLES:
        computed.delete(f"tiny/word_dropout/{table}/*")
    computed.delete("tiny/model/model.safetensors")
    store = computed.store()
    assert store.state(store.lineage.key("model")) is State.MISSING
    computed.gradsim("run", "tiny")
    assert versions(computed) == before


@pytest.mark.timeout(900)  # two whole runs
def test_stored_bytes_that_changed_are_named_and_computed_again(computed):
    """One bit each of a definition, a partition, a combined table, an analysis, the index, the report and the model."""
    before = versions(computed)
    flipped = [
        "tiny/samples.parquet",
        "tiny/word_dropout/candidates/0007-0013.parquet",
        "tiny/word_dropout/results/query_self.parquet",
        "tiny/word_dropout/analysis/accuracy_per_layer.parquet",
        "tiny/gradient_index/0000-0006.arrow",
        "tiny/report.html",
        "tiny/model/tokenizer.json",
    ]
    for name in flipped:
        path = computed.data / name
        content = bytearray(path.read_bytes())
        content[len(content) // 3] ^= 4
        path.write_bytes(content)

    status = computed.gradsim("status", "tiny")
    for name in flipped:
        assert f"corrupt: {computed.data / name}; the next run computes it again" in status
    computed.gradsim("run", "tiny")

    assert "corrupt" not in computed.gradsim("status", "tiny")
    assert versions(computed) == before


def versions(place):
    return {path: read_provenance(path).data_version for path in place.data.rglob("*.parquet")}


# -- losses that are no number -------------------------------------------------------------

BAD = "s05"


@pytest.fixture(scope="module")
def brittle(tmp_path_factory, finished):
    """A study of whose originals one has a letter that the model cannot bear."""
    place = Workplace(tmp_path_factory.mktemp("brittle"))
    samples = place.rows(12)
    prompt = samples[int(BAD[1:])]["messages"][0]
    prompt["content"] = f"~{prompt['content']}"
    place.write_rows("originals.jsonl", samples)
    source, folder = finished.store().model_folder, place.folder / "model"
    tokenizer = AutoTokenizer.from_pretrained(source)
    configuration = AutoConfig.from_pretrained(source, tie_word_embeddings=False)
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(configuration)
    with torch.no_grad():
        model.get_input_embeddings().weight[tokenizer.convert_tokens_to_ids("~")] = float("inf")
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    for name in ("error", "exclude"):
        place.write_study(
            name, model={"name": str(folder)}, chat={"template": "tulu"}, on_bad_sample=name, partition_size=6
        )
    return place


def test_a_loss_that_is_no_number_is_an_error_that_names_the_sample(brittle):
    output = brittle.gradsim("run", "error", fails=True)
    assert f"'{BAD}'" in output
    assert "has a loss of nan" in output
    assert "Traceback" not in output
    assert not list(brittle.data.glob("error/word_dropout/dot_products/*"))


def test_a_loss_that_is_no_number_is_excluded_and_counted_where_the_study_says_so(brittle):
    output = brittle.gradsim("run", "exclude")
    store = brittle.store("exclude")
    key = store.lineage.key("dot_products", "word_dropout")
    similarities = store.read(store.lineage.key("gradient_similarity", "word_dropout", "results"))
    candidates = store.read(store.lineage.key("candidates", "word_dropout", "results"))
    without = candidates.filter(pl.col("query_id").cast(pl.String) != BAD, pl.col("original_id").cast(pl.String) != BAD)
    assert candidates.height == 36
    assert similarities.select("query_id", "original_id").equals(without.select("query_id", "original_id"))
    assert similarities["similarity"].is_finite().all()
    assert store.provenance(key, "0000-0005").excluded.keys() == {BAD}
    report = (brittle.data / "exclude/report.html").read_text(encoding="utf-8")
    assert "loss or gradient is not finite" in report
    assert f"report: {brittle.data / 'exclude' / 'report.html'}" in output
