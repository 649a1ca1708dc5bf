"""A whole setting through an API that fails in every way, by processes that are killed on the way."""

import signal
from collections import Counter

import polars as pl
import pytest
from chat_server import Behaviour, chat_server

from gradsim.text_generation.journal import read_journal

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

SAMPLES, CONCURRENCY = 988, 32
UNRELIABLE = Behaviour(
    seconds=0.02,
    faults={"429": 0.10, "500": 0.05, "dropped": 0.02, "malformed": 0.01, "stalled": 0.01},
    retry_after=0.2,
)


def samples():
    for n in range(SAMPLES):
        texts = {"user": f"How do I repair clock number {n}?", "assistant": f"Open clock {n}, then look at its spring."}
        yield {"id": f"s{n:03d}", "messages": [{"role": role, "content": text} for role, text in texts.items()]}


TEXTS = [message["content"] for sample in samples() for message in sample["messages"]]


@pytest.fixture
def place(workplace):
    workplace.write_rows("originals.jsonl", list(samples()))
    setting = {"method": "paraphrase", "concurrency": CONCURRENCY, "timeout": 2}
    workplace.write_study(settings={"paraphrased": setting}, partition_size=100)
    return workplace


@pytest.fixture
def server(tmp_path):
    with chat_server(tmp_path / "server", UNRELIABLE) as server:
        yield server


@pytest.fixture
def variables(server):
    return {"OPENAI_BASE_URL": server.base_url, "OPENAI_API_KEY": "sk-none"}


def journaled(place):
    """Texts whose answers the journal holds, in its order."""
    paths = (place.data / ".journals").glob("*.jsonl")
    answers = [entry["text"] for path in paths for entry in read_journal(path).values()]
    return [answer.removesuffix(" (again)") for answer in answers]


def journal_lines(place):
    return sum(len(path.read_bytes().splitlines()) for path in (place.data / ".journals").glob("*.jsonl"))


def check_queries(place):
    """Every sample once, in order, with its own texts."""
    store = place.store()
    queries = store.read(store.lineage.key("queries", "paraphrased"))
    assert queries["id"].cast(pl.String).to_list() == [sample["id"] for sample in samples()]
    contents = [message["content"] for dialogue in queries["messages"].to_list() for message in dialogue]
    assert contents == [f"{text} (again)" for text in TEXTS]


def test_every_text_is_answered_once_whatever_fails(place, server, variables):
    place.gradsim("prepare", "tiny", "paraphrased", **variables)
    check_queries(place)
    outcomes = Counter(request["outcome"] for request in server.requests())
    assert outcomes.keys() == {"answered", *UNRELIABLE.faults}, "every kind of fault was met"
    assert Counter(server.answered()) == Counter(TEXTS), "nothing was asked for after it had been answered"
    assert journal_lines(place) == len(TEXTS)


def test_processes_that_are_killed_lose_and_pay_twice_only_what_is_in_flight(place, server, variables, wait_until):
    kept: list[str] = []
    for kill in range(1, 6):
        asked_before = len(server.requests())
        process = place.start("gradsim", "prepare", "tiny", "paraphrased", **variables)

        def enough(kill=kill, process=process):
            assert process.poll() is None, process.communicate()[0]
            return journal_lines(place) >= kill * len(TEXTS) // 6

        wait_until(enough, "answers")
        process.send_signal(signal.SIGKILL)
        process.communicate()
        asked = [request["text"] for request in server.requests()[asked_before:]]
        assert not set(kept) & set(asked), "what was kept is not asked for again"
        kept = journaled(place)
    place.gradsim("prepare", "tiny", "paraphrased", **variables)
    check_queries(place)
    paid = Counter(server.answered())
    assert paid.keys() == set(TEXTS)
    twice = sum(count - 1 for count in paid.values())
    assert twice <= 5 * CONCURRENCY, f"{twice} answers were paid for again"
    assert sorted(journaled(place)) == sorted(TEXTS)
    assert journal_lines(place) == len(TEXTS)
