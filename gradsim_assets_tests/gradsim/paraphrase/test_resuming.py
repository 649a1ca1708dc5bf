"""What was paid for is kept, and not paid for again."""

import json
import threading
from pathlib import Path

import pytest

from gradsim.paraphrase import ParaphraseError
from gradsim.queries.rewriting import Request
from gradsim_assets_tests.gradsim.paraphrase.conftest import MakeParaphraser
from gradsim_assets_tests.gradsim.paraphrase.talk import KEY, Reply, Server

REQUESTS = [Request(f"text {n}", 42) for n in range(10)]


def test_nothing_is_asked_for_twice(server: Server, paraphraser: MakeParaphraser) -> None:
    first = paraphraser().ask(REQUESTS[:6])
    calls: list[tuple[int, int]] = []
    again = paraphraser().ask(REQUESTS, lambda done, total: calls.append((done, total)))
    assert {request: again[request] for request in first} == first
    assert sorted(server.texts()) == sorted(request.text for request in REQUESTS)
    assert calls == [(done, 10) for done in range(7, 11)]


@pytest.mark.parametrize("change", [{"model": "b"}, {"temperature": 0.5}, {"system_prompt": "Otherwise."}])
def test_another_request_is_asked_for(server: Server, paraphraser: MakeParaphraser, change: dict[str, object]) -> None:
    paraphraser(model="a").ask(REQUESTS[:1])
    paraphraser(**{"model": "a", **change}).ask(REQUESTS[:1])
    paraphraser(model="a").ask([Request("text 0", 43)])
    assert len(server.requests) == 3


def test_limits_and_names_make_no_other_request(server: Server, paraphraser: MakeParaphraser) -> None:
    paraphraser().ask(REQUESTS[:1])
    paraphraser(name="another/setting", concurrency=2, timeout=5, prices={"input": 1, "output": 1}).ask(REQUESTS[:1])
    assert len(server.requests) == 1


def test_the_journal_holds_what_came_and_no_key(server: Server, paraphraser: MakeParaphraser, tmp_path: Path) -> None:
    server.reply = lambda text, attempt: Reply(usage=(11, 5))
    paraphraser().ask(REQUESTS)
    (journal,) = (tmp_path / "journals").iterdir()
    assert journal.name == f"127.0.0.1_{server.server_port}_gpt-4o-mini-2024-07-18.jsonl"
    entries = [json.loads(line) for line in journal.read_text().splitlines()]
    assert {entry["text"] for entry in entries} == {request.text.upper() for request in REQUESTS}
    assert {(*entry["cost"], entry["setting"]) for entry in entries} == {(11, 5, "study/setting")}
    assert KEY not in journal.read_text()


def test_who_asks_the_same_model_meanwhile_waits_and_pays_nothing(server: Server, paraphraser: MakeParaphraser) -> None:
    first_asked, go_on = threading.Event(), threading.Event()

    def reply(text: str, attempt: int) -> Reply:
        first_asked.set()
        go_on.wait(timeout=20)
        return Reply()

    server.reply = reply
    found: list[object] = []
    said: list[str] = []

    def say(line: str) -> None:
        said.append(line)
        if "waiting" in line:
            go_on.set()

    threads = [threading.Thread(target=lambda: found.append(paraphraser().ask(REQUESTS)))]
    threads[0].start()
    assert first_asked.wait(timeout=20)
    threads.append(threading.Thread(target=lambda: found.append(paraphraser().ask(REQUESTS, say=say))))
    threads[1].start()
    for thread in threads:
        thread.join(timeout=30)
    assert len(found) == 2
    assert found[0] == found[1]
    assert len(server.requests) == 10
    assert said[0].startswith("waiting for another run that writes to ")


PRICES = {"input": 10_000.0, "output": 20_000.0}  # a cent and two for a token


class TestBudget:
    def test_it_is_not_exceeded_and_what_is_paid_is_kept(self, server: Server, paraphraser: MakeParaphraser) -> None:
        server.reply = lambda text, attempt: Reply(usage=(100, 50))  # two dollars
        with pytest.raises(ParaphraseError) as caught:
            paraphraser(prices=PRICES, max_cost=13.0, system_prompt="x", concurrency=4).ask(REQUESTS)
        answered = len(server.requests)
        assert 4 <= answered <= 6, "six fit, and a request is set aside with a margin"
        assert str(caught.value) == (
            f"max_cost of $13 is reached: ${2 * answered}.0000 are spent, and what they paid for is kept; "
            "raise max_cost in the study and run again to go on"
        )
        with pytest.raises(ParaphraseError, match="is reached"):
            paraphraser(prices=PRICES, max_cost=13.0, system_prompt="x").ask(REQUESTS)
        assert len(server.requests) == answered, "it counts what was spent before"
        assert len(paraphraser(prices=PRICES, max_cost=30.0, system_prompt="x").ask(REQUESTS)) == 10
        assert len(server.requests) == 10

    def test_others_expenses_do_not_count(self, server: Server, paraphraser: MakeParaphraser) -> None:
        server.reply = lambda text, attempt: Reply(usage=(100, 50))
        paraphraser(prices=PRICES).ask(REQUESTS[:5])
        other = paraphraser(name="another/setting", prices=PRICES, max_cost=13.0, system_prompt="x")
        assert len(other.ask(REQUESTS[5:8])) == 3

    def test_a_server_that_does_not_count_is_counted_for(self, server: Server, paraphraser: MakeParaphraser) -> None:
        long = [Request("word " * 400, 42), Request("other " * 400, 42)]
        with pytest.raises(ParaphraseError, match="is reached"):
            paraphraser(prices=PRICES, max_cost=40.0, concurrency=1).ask(long)
        assert len(server.requests) <= 1


def test_the_estimate_is_near_what_is_paid(server: Server, paraphraser: MakeParaphraser) -> None:
    texts = [Request(f"{n} " + "some words of a text that is longer " * 20, 42) for n in range(10)]
    estimate = paraphraser(prices={"input": 0.15, "output": 0.6}).estimate(texts)
    assert (estimate.texts, estimate.answered) == (10, 0)
    assert estimate.cost.output_tokens == pytest.approx(sum(len(each.text) for each in texts) / 4, rel=0.01)
    assert estimate.dollars == pytest.approx(
        estimate.cost.input_tokens * 0.15e-6 + estimate.cost.output_tokens * 0.6e-6
    )
    paraphraser().ask(texts[:4])
    assert paraphraser().estimate(texts).answered == 4
    assert len(server.requests) == 4


def test_requests_a_minute(server: Server, paraphraser: MakeParaphraser) -> None:
    """Six in a second's worth at most: the time is a bound from below, which a slow machine keeps too."""
    import time

    started = time.monotonic()
    paraphraser(requests_per_minute=600, concurrency=10).ask(REQUESTS + [Request(f"more {n}", 1) for n in range(10)])
    assert time.monotonic() - started >= 0.95 * (20 - 10) / 10
