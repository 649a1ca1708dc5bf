"""What was paid for is kept, and not paid for again."""

import json
import threading
import time
from pathlib import Path

import pytest

from gradsim.text_generation.api import ParaphraseError
from gradsim.text_generation.request import Request
from gradsim_assets_tests.gradsim.text_generation.api.conftest import MakeParaphraser
from gradsim_assets_tests.gradsim.text_generation.api.talk import KEY, Reply, Server

REQUESTS = [Request(f"text {n}", 42) for n in range(10)]


def test_nothing_is_asked_for_twice(server: Server, paraphraser: MakeParaphraser) -> None:
    first = paraphraser().ask(REQUESTS[:6])
    calls: list[tuple[int, int]] = []
    again = paraphraser().ask(REQUESTS, lambda done, total: calls.append((done, total)))
    assert {request: again[request] for request in first} == first
    assert sorted(server.texts()) == sorted(request.text for request in REQUESTS)
    assert calls[0][0] >= 6
    assert calls[-1] == (10, 10)


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
    assert said[0].startswith("waiting for another run that is writing to ")


PRICES = {"input": 10_000.0, "output": 20_000.0}  # a cent and two for a token


class TestBudget:
    def test_it_is_not_exceeded_and_what_is_paid_is_kept(self, server: Server, paraphraser: MakeParaphraser) -> None:
        server.reply = lambda text, attempt: Reply(usage=(100, 50))  # two dollars
        with pytest.raises(ParaphraseError) as caught:
            paraphraser(prices=PRICES, max_cost=13.0, system_prompt="x", concurrency=4).ask(REQUESTS)
        answered = len(server.requests)
        assert answered == 6, "as many as fit"
        assert str(caught.value) == (
            "max_cost of $13 is reached: $12.0000 spent, and the next text may cost $2.0000; paid answers are "
            "saved, raise max_cost in the study and run again to continue"
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
        assert len(server.requests) == 1

    def test_a_text_that_is_dear_for_its_length_does_not_stop_the_others(
        self, server: Server, paraphraser: MakeParaphraser
    ) -> None:
        """A model that thinks: three thousand tokens for a word, as many for a page."""
        server.reply = lambda text, attempt: Reply(usage=(100, 3000))
        texts = [Request("Hi", 42), *(Request(f"{n} " + "some words " * 130, 42) for n in range(19))]
        found = paraphraser(prices={"input": 1.0, "output": 10.0}, max_cost=0.75, concurrency=4).ask(texts)
        assert len(found) == 20, "sixty cents in all, and room for one more at most"

    def test_what_was_lost_is_paid_for(self, server: Server, paraphraser: MakeParaphraser) -> None:
        server.reply = lambda text, attempt: Reply(drop=True) if attempt == 1 else Reply(usage=(100, 50))
        paraphraser(prices=PRICES, max_cost=100.0, system_prompt="x", concurrency=1).ask(REQUESTS[:2])
        with pytest.raises(ParaphraseError, match=r"\$[6-8]\.\d+ spent"):
            paraphraser(prices=PRICES, max_cost=8.0, system_prompt="x", concurrency=1).ask(REQUESTS)

    def test_what_costs_nothing_is_asked_for_at_once(self, server: Server, paraphraser: MakeParaphraser) -> None:
        server.gate = threading.Barrier(4)
        free = {"input": 0.0, "output": 0.0}
        assert len(paraphraser(prices=free, max_cost=1.0, concurrency=4).ask(REQUESTS[:8])) == 8


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


def test_tokens_a_minute(server: Server, paraphraser: MakeParaphraser) -> None:
    """What the API counts, not what was expected; the time is a bound from below, which a slow machine keeps too."""
    server.reply = lambda text, attempt: Reply(usage=(500, 500))
    started = time.monotonic()
    paraphraser(tokens_per_minute=120_000, concurrency=2, system_prompt="x").ask(REQUESTS)
    assert time.monotonic() - started >= 0.9 * (10 * 1000 - 2 * 2000) / 2000


def test_requests_a_minute(server: Server, paraphraser: MakeParaphraser) -> None:
    """Ten of a second's worth at most go at once."""
    started = time.monotonic()
    paraphraser(requests_per_minute=600, concurrency=10).ask(REQUESTS + [Request(f"more {n}", 1) for n in range(10)])
    assert time.monotonic() - started >= 0.95 * (20 - 10) / 10
