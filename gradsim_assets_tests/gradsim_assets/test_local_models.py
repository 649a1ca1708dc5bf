"""Queries that a model here writes: as jobs, resumed where they were killed, the same whatever happens to them."""

import json
import signal

import polars as pl
import pytest

from gradsim.dataset.samples import SAMPLES_SCHEMA
from gradsim.models import train_reference_model
from gradsim.text_generation.journal import read_journal

pytestmark = pytest.mark.slow


@pytest.fixture
def model(workplace, tmp_path):
    """A model that is not the studied one."""
    rows = pl.DataFrame(workplace.rows(20), schema=SAMPLES_SCHEMA)
    train_reference_model(rows, tmp_path / "model", layers=1, hidden_size=32, heads=2, vocabulary=400, steps=20)
    return str(tmp_path / "model")


def journals(place):
    return sorted((place.data / ".journals").rglob("*.jsonl"))


def queries(place, setting):
    store = place.store()
    return store.read(store.lineage.key("queries", setting))


def test_a_local_model_rewrites_prompt_and_answer(workplace, model):
    setting = {"method": "local", "model": model, "precision": "float32", "max_new_tokens": 8, "temperature": 0.7}
    workplace.write_study(settings={"paraphrased": setting}, partition_size=10)
    workplace.gradsim("run", "tiny", "--setting", "paraphrased", "--computation", "gradient-similarity")
    first = queries(workplace, "paraphrased")
    assert first["id"].cast(pl.String).to_list() == [f"s{n:02d}" for n in range(20)]
    assert first["seeds"].to_list() == [[42, 42]] * 20
    assert set(first["finish_reasons"].explode(empty_as_null=True)) <= {"stop", "length"}
    store = workplace.store()
    provenance = store.provenance(store.lineage.key("queries", "paraphrased"), "0000-0009")
    assert (provenance.model, provenance.device, provenance.precision) == (model, "cpu", "float32")
    assert len(provenance.revision) == 64, "the digest of its files"

    kept = {path: path.read_bytes() for path in journals(workplace)}
    workplace.delete("tiny/paraphrased/queries/*")
    workplace.gradsim("prepare", "tiny", "paraphrased")
    assert queries(workplace, "paraphrased").equals(first)
    assert {path: path.read_bytes() for path in journals(workplace)} == kept, "nothing was written a second time"


def test_a_generating_job_that_is_killed_goes_on_where_it_was(workplace, tmp_path, wait_until):
    rows = workplace.rows(20)
    for number, row in enumerate(rows):  # prompts of many lengths come to the context's end one after the other
        row["messages"][0]["content"] *= number + 1
    workplace.write_rows("originals.jsonl", rows)
    workplace.write_study(
        settings={
            "paraphrased": {"method": "word_dropout"},
            "model_generated": {"method": "generate", "prompts": "paraphrased"},
        },
        model={"reference": {"layers": 2, "hidden_size": 64, "heads": 4, "vocabulary": 300, "steps": 2}},
        partition_size=20,
    )
    workplace.gradsim("prepare", "tiny", "paraphrased")
    whole = workplace.copy(tmp_path / "whole")
    answered = 0
    for _ in range(2):
        process = workplace.start("gradsim", "prepare", "tiny", "model-generated")

        def more(before=answered, process=process):
            assert process.poll() is None, process.communicate()[0]
            return sum(len(read_journal(path)) for path in journals(workplace)) > before

        wait_until(more, "answers", seconds=240)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        answered = sum(len(read_journal(path)) for path in journals(workplace))
    workplace.gradsim("prepare", "tiny", "model-generated")
    (journal,) = journals(workplace)
    lines = [json.loads(line)["key"] for line in journal.read_text().splitlines()]
    assert len(lines) == len(set(lines)) == 20, "no answer was generated twice"
    whole.gradsim("prepare", "tiny", "model-generated")
    assert queries(workplace, "model_generated").equals(queries(whole, "model_generated"))
