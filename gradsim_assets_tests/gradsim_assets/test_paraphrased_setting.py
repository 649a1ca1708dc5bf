"""A whole setting whose queries an API writes: a real server on this machine that speaks chat completions."""

import re
import signal
import sqlite3
import threading
import time
import zlib

import polars as pl
import pytest
import uvicorn
from chat_server import Behaviour, chat_server
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route

from gradsim.text_generation.journal import read_journal

pytestmark = pytest.mark.slow

KEY = "sk-0123-not-for-anyones-eyes-4567"
SETTING = {"method": "paraphrase", "model": "a-model", "temperature": 0.5, "concurrency": 2}
PRICED = {"prices": {"input": 1000.0, "output": 2000.0}, "max_cost": 500.0}


class API:
    """Rewords by swapping two words; says who asked, and refuses where it is told to."""

    def __init__(self):
        self.keys = set()
        self.requests = []
        self.refuses = False
        routes = [Route("/v1/chat/completions", self.complete, methods=["POST"])]
        self.server = uvicorn.Server(uvicorn.Config(Starlette(routes=routes), port=0, log_level="critical"))

    async def complete(self, request):
        key = request.headers["authorization"].removeprefix("Bearer ")
        self.keys.add(key)
        if self.refuses:
            return JSONResponse({"error": {"message": f"Incorrect API key provided: {key}"}}, status_code=401)
        asked = await request.json()
        self.requests.append(asked)
        text = asked["messages"][-1]["content"].replace("home", "your own house").replace("begin", "start")
        choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}
        return JSONResponse(
            {"id": "1", "object": "chat.completion", "created": 0, "model": asked["model"], "choices": [choice]}
        )


@pytest.fixture
def api():
    api = API()
    thread = threading.Thread(target=api.server.run)
    thread.start()
    while not api.server.started:
        time.sleep(0.01)
    yield api
    api.server.should_exit = True
    thread.join()


@pytest.fixture
def variables(api):
    port = api.server.servers[0].sockets[0].getsockname()[1]
    return {"OPENAI_BASE_URL": f"http://127.0.0.1:{port}/v1", "OPENAI_API_KEY": KEY}


@pytest.fixture
def place(workplace):
    workplace.write_rows("originals.jsonl", workplace.rows(6))
    workplace.write_study(settings={"paraphrased": SETTING}, partition_size=3, samples=6)
    return workplace


def everything_stored(place):
    """All bytes that a run left, what Dagster keeps compressed included."""
    for path in place.folder.rglob("*"):
        if path.is_file():
            yield path, path.read_bytes()
    with sqlite3.connect(place.home / "history" / "runs.db") as runs:
        for (body,) in runs.execute("SELECT snapshot_body FROM snapshots"):
            yield "snapshot", zlib.decompress(body)


def test_a_whole_setting_is_paraphrased_and_computed_and_the_key_stays_secret(place, api, variables):
    output = place.gradsim("run", "tiny", "--computation", "gradient-similarity", **variables)
    assert api.keys == {KEY}
    assert len(api.requests) == 12, "prompt and answer of six samples, each once"
    assert {(each["model"], each["temperature"], each["seed"]) for each in api.requests} == {("a-model", 0.5, 42)}
    store = place.store()
    queries = store.read(store.lineage.key("queries", "paraphrased"))
    assert queries["messages"][0][0]["content"] == "How should I clean a knife at your own house?"
    assert queries["messages"][0][1]["content"].startswith("To clean the knife, start with warm water")
    similarities = store.read(store.lineage.key("gradient_similarity", "paraphrased"))
    assert similarities.filter(pl.col("query_id") == pl.col("original_id"))["similarity"].min() > 0.5
    assert KEY not in output
    stored = list(everything_stored(place))
    assert any(name == "snapshot" for name, _ in stored)
    assert [name for name, content in stored if KEY.encode() in content] == []


def test_what_would_be_sent_and_paid_is_said_before_and_nothing_is_sent(place, api, variables):
    place.write_study(settings={"paraphrased": {**SETTING, **PRICED}}, partition_size=3, samples=6)
    output = place.gradsim("prepare", "tiny", "paraphrased", "--dry-run", **variables)
    said = r"sends 12 texts to 127\.0\.0\.1:\d+: about [\d,]+ tokens with instructions and answers, about \$1\.\d\d, "
    assert re.search(said + r"max_cost \$500\.00 \(a-model, 6 samples\)", output)
    assert api.requests == []
    assert KEY not in output
    assert not list(place.data.glob("tiny/paraphrased/queries/*"))
    settings = {
        "paraphrased": {**SETTING, **PRICED},
        "model_generated": {"method": "generate", "prompts": "paraphrased"},
    }
    place.write_study(settings=settings, partition_size=3, samples=6)
    for command in (("prepare", "tiny", "model-generated"), ("run", "tiny", "--setting", "model-generated")):
        assert "paraphrased: sends 12 texts" in place.gradsim(*command, "--dry-run", **variables)
    assert "sends 6 texts" in place.gradsim("run", "tiny", "--partition", "0003-0005", "--dry-run", **variables)
    assert api.requests == []
    place.gradsim("prepare", "tiny", "paraphrased", **variables)
    place.delete("tiny/paraphrased/queries/0003-0005.parquet")
    again = place.gradsim("prepare", "tiny", "paraphrased", "--dry-run", **variables)
    assert "sends 0 texts to" in again
    assert "(6 of 6 are answered)" in again
    place.gradsim("prepare", "tiny", "paraphrased", **variables)
    assert len(api.requests) == 12, "a table that was lost is made again from the journal"


def test_a_trial_pays_for_the_whole(place, api, variables):
    place.gradsim("prepare", "tiny", "paraphrased", MT_SAMPLE_SIZE="3", **variables)
    assert len(api.requests) == 6
    place.gradsim("prepare", "tiny", "paraphrased", **variables)
    assert len(api.requests) == 12


def test_a_refused_key_is_one_line_that_does_not_repeat_it(place, api, variables):
    api.refuses = True
    output = place.gradsim("prepare", "tiny", "paraphrased", fails=True, **variables)
    assert re.search(r"queries: 127\.0\.0\.1:\d+ refused the key \(401\); check OPENAI_API_KEY\n", output)
    assert "Traceback" not in output
    assert KEY not in output
    assert [name for name, content in everything_stored(place) if KEY.encode() in content] == []
    assert not list(place.data.glob("tiny/paraphrased/queries/*"))


def test_a_password_in_the_address_is_refused_and_stored_nowhere(place, api, variables):
    address = variables["OPENAI_BASE_URL"].replace("http://", "http://someone:hunter2@")
    output = place.gradsim("prepare", "tiny", "paraphrased", fails=True, **{**variables, "OPENAI_BASE_URL": address})
    assert "OPENAI_BASE_URL contains a user or password; remove it" in output
    assert "hunter2" not in output
    assert [name for name, content in everything_stored(place) if b"hunter2" in content] == []
    assert api.requests == []


def test_who_is_interrupted_keeps_what_was_in_flight(place, tmp_path, wait_until):
    with chat_server(tmp_path / "server", Behaviour(seconds=1.0)) as server:
        variables = {"OPENAI_BASE_URL": server.base_url, "OPENAI_API_KEY": KEY}
        process = place.start("gradsim", "prepare", "tiny", "paraphrased", **variables)
        wait_until(lambda: len(server.answered()) >= 2, "the first answers")
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=60)
        assert process.returncode != 0
        assert "interrupted; finished work is kept" in output
        answered = len(server.answered())
        (journal,) = (place.data / ".journals").glob("*.jsonl")
        assert 2 <= answered < 12
        assert len(read_journal(journal)) == answered
