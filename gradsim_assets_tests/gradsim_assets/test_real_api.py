"""A whole paraphrase asset through a real OpenAI-compatible server, that of transformers, with a tiny model."""

import json
import socket
import urllib.error
import urllib.request

import dagster as dg
import polars as pl
import pytest

from gradsim.dataset.samples import SAMPLES_SCHEMA
from gradsim.models import train_reference_model
from gradsim_assets.keys import asset_key

pytestmark = pytest.mark.slow

TEMPLATE = (
    "{% for message in messages %}<|{{ message['role'] }}|>\n{{ message['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)


@pytest.fixture
def place(workplace):
    workplace.write_rows("originals.jsonl", workplace.rows(6))
    return workplace


@pytest.fixture
def model(place, tmp_path):
    """A model that has seen a little English, and answers in a few tokens."""
    folder = tmp_path / "model"
    rows = pl.DataFrame(place.rows(6), schema=SAMPLES_SCHEMA)
    train_reference_model(rows, folder, layers=1, hidden_size=32, heads=2, vocabulary=400, steps=20)
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    generation = json.loads((folder / "generation_config.json").read_text())
    (folder / "generation_config.json").write_text(json.dumps({**generation, "max_new_tokens": 24}))
    return folder


@pytest.fixture
def base_url(place, model, tmp_path, wait_until):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with (tmp_path / "server.log").open("w") as log:
        address = ("--host", "127.0.0.1", "--port", str(port), "--device", "cpu")
        server = place.start("transformers", "serve", str(model), *address, output=log)

    def ready():
        assert server.poll() is None, (tmp_path / "server.log").read_text()
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/health"):
                return True
        except urllib.error.URLError:
            return False

    try:
        wait_until(ready, "the server", pause=0.2)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        server.terminate()
        server.wait(timeout=30)


def test_a_paraphrase_asset_through_transformers_serve(place, model, base_url):
    setting = {"method": "paraphrase", "model": str(model), "system_prompt": "Reword.", "concurrency": 4}
    place.write_study(settings={"paraphrased": setting}, partition_size=3, samples=6)
    output = place.gradsim(
        "prepare", "tiny", "paraphrased", OPENAI_BASE_URL=base_url, OPENAI_API_KEY="sk-none", NO_PROXY="127.0.0.1"
    )
    assert "paraphrasing sends 12 texts to 127.0.0.1" in output
    store = place.store()
    key = store.lineage.key("queries", "paraphrased")
    queries = store.read(key)
    assert queries["id"].cast(pl.String).to_list() == [row["id"] for row in place.rows(6)]
    texts = [message["content"] for dialogue in queries["messages"].to_list() for message in dialogue]
    assert all(texts), "the model wrote something for every prompt and answer"
    assert set(queries["finish_reasons"].explode()) <= {"stop", "length"}
    assert store.provenance(key, "0000-0002").model == str(model)
    truncated = sum("length" in reasons for reasons in queries["finish_reasons"].to_list())
    with place.instance() as instance:
        check = dg.AssetCheckKey(asset_key(key), "texts_not_truncated")
        evaluations = [
            record.evaluation
            for record in instance.event_log_storage.get_asset_check_execution_history(check, limit=10)
            if record.partition
        ]
    assert {evaluation.partition for evaluation in evaluations} == {"0000-0002", "0003-0005"}
    found = sum(evaluation.metadata["faulty queries kept"].value for evaluation in evaluations)
    assert found == truncated
    assert all(
        evaluation.passed == (not evaluation.metadata["faulty queries kept"].value) for evaluation in evaluations
    )
