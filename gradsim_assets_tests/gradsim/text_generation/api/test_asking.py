"""What is asked for, how many at a time, and when it is asked for again."""

import asyncio
import threading
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from gradsim.study.settings import SYSTEM_PROMPT
from gradsim.text_generation.api import ParaphraseError
from gradsim.text_generation.request import Answer, Request
from gradsim_assets_tests.gradsim.text_generation.api.conftest import MakeParaphraser
from gradsim_assets_tests.gradsim.text_generation.api.talk import Reply, Server

pytestmark = pytest.mark.slow


def requests(count: int) -> list[Request]:
    return [Request(f"text {n}", 42) for n in range(count)]


def in_capitals(asked: list[Request]) -> dict[Request, Answer]:
    return {request: Answer(request.text.upper(), "stop") for request in asked}


def test_every_text_is_asked_for_once(server: Server, paraphraser: MakeParaphraser) -> None:
    calls: list[tuple[int, int]] = []
    said: list[str] = []
    found = paraphraser().ask(requests(20), lambda done, total: calls.append((done, total)), said.append)
    assert found == in_capitals(requests(20))
    assert list(found) == requests(20)
    assert calls == sorted(calls)
    assert calls[-1] == (20, 20)
    assert sorted(server.texts()) == sorted(request.text for request in requests(20))
    assert server.requests[0] == {
        "model": "gpt-4o-mini-2024-07-18",
        "temperature": 1.0,
        "seed": 42,
        "messages": [
            {"role": "system", "content": SYSTEM_PROMPT},
            {"role": "user", "content": server.texts()[0]},
        ],
    }
    (line,) = said
    assert line.startswith(f"paraphrasing sends 20 texts to 127.0.0.1:{server.server_port}: about ")


def test_keys_of_the_setting_are_what_is_asked_with(server: Server, paraphraser: MakeParaphraser) -> None:
    paraphraser(model="other", temperature=0.5, system_prompt="Say it again.").ask([Request("text", 7)])
    (request,) = server.requests
    assert (request["model"], request["temperature"], request["seed"]) == ("other", 0.5, 7)
    assert request["messages"][0] == {"role": "system", "content": "Say it again."}


def test_no_texts_ask_nothing(server: Server, paraphraser: MakeParaphraser) -> None:
    assert paraphraser().ask([]) == {}
    assert server.requests == []


def test_concurrency_is_reached_and_not_exceeded(server: Server, paraphraser: MakeParaphraser) -> None:
    server.gate = threading.Barrier(4)  # opens only when four requests are in flight
    paraphraser(concurrency=4).ask(requests(8))
    assert server.most_in_flight == 4


@pytest.mark.parametrize(
    "trouble",
    [
        *(Reply(status=status, headers={"Retry-After-Ms": "1"}) for status in (408, 409, 429, 500, 503)),
        Reply(drop=True),
        Reply(body='{"choices": [{"ind'),
        Reply(body='{"choices": []}'),
        *(Reply(body=f'{{"choices": {choices}}}') for choices in ("[null]", '["x"]', '"abc"', "{}")),
        Reply(body='{"choices": [{"message": "hello"}]}'),
        Reply(body='{"choices": [{"message": {"content": [{"type": "text", "text": "hi"}]}}]}'),
        Reply(body='{"error": {"message": "overloaded"}}'),
    ],
    ids=lambda reply: str(reply.body or ("dropped" if reply.drop else reply.status)),
)
def test_trouble_that_passes_is_waited_for(
    server: Server, paraphraser: MakeParaphraser, short_pauses: None, trouble: Reply
) -> None:
    server.reply = lambda text, attempt: trouble if text == "text 1" and attempt <= 2 else Reply()
    assert paraphraser().ask(requests(3)) == in_capitals(requests(3))
    assert server.texts().count("text 1") == 3
    assert len(server.requests) == 5


def test_a_request_that_stalls_is_given_up_and_made_again(server: Server, paraphraser: MakeParaphraser) -> None:
    release = threading.Event()

    def reply(text: str, attempt: int) -> Reply:
        if attempt == 1:
            release.wait(timeout=20)
        return Reply()

    server.reply = reply
    try:
        assert paraphraser(timeout=0.3).ask(requests(1)) == in_capitals(requests(1))
    finally:
        release.set()


def gaps(server: Server, paraphraser: MakeParaphraser, trouble: Reply) -> list[float]:
    """Seconds between the first and the second try for each of eight texts."""
    times: dict[str, list[float]] = {}

    def reply(text: str, attempt: int) -> Reply:
        times.setdefault(text, []).append(time.monotonic())
        return trouble if attempt == 1 else Reply()

    server.reply = reply
    paraphraser(concurrency=8).ask(requests(8))
    return [second - first for first, second in times.values()]


def test_the_seconds_that_an_api_asks_for_are_waited(server: Server, paraphraser: MakeParaphraser) -> None:
    assert min(gaps(server, paraphraser, Reply(status=429, headers={"Retry-After": "1.5"}))) >= 1.5


def test_an_api_that_asks_to_wait_until_tomorrow_ends_it(server: Server, paraphraser: MakeParaphraser) -> None:
    tomorrow = format_datetime(datetime.now(UTC) + timedelta(days=1))
    server.reply = lambda text, attempt: Reply(status=429, headers={"Retry-After": tomorrow})
    with pytest.raises(ParaphraseError, match=r"asks to wait 86,\d\d\d seconds"):
        paraphraser().ask(requests(1))


def test_an_api_that_says_to_come_back_at_once_is_not_run_over(server: Server, paraphraser: MakeParaphraser) -> None:
    assert min(gaps(server, paraphraser, Reply(status=429, headers={"Retry-After": "0"}))) >= 0.5


def test_who_meets_trouble_at_once_does_not_come_back_at_once(server: Server, paraphraser: MakeParaphraser) -> None:
    waits = gaps(server, paraphraser, Reply(status=500))
    assert min(waits) >= 0.5
    assert max(waits) - min(waits) > 0.1


def test_waits_grow(server: Server, paraphraser: MakeParaphraser) -> None:
    times: list[float] = []

    def reply(text: str, attempt: int) -> Reply:
        times.append(time.monotonic())
        return Reply(status=500) if attempt <= 2 else Reply()

    server.reply = reply
    paraphraser().ask(requests(1))
    assert times[1] - times[0] >= 0.5
    assert times[2] - times[1] >= 1.0


def test_a_text_that_the_api_does_not_take_has_an_empty_answer(server: Server, paraphraser: MakeParaphraser) -> None:
    codes = {"text 0": "content_filter", "text 1": "context_length_exceeded"}
    server.reply = lambda text, attempt: Reply(status=400, code=codes[text]) if text in codes else Reply()
    found = paraphraser().ask(requests(3))
    assert [found[request].finish_reason for request in requests(3)] == ["content_filter", "length", "stop"]
    assert [found[request].text for request in requests(3)] == ["", "", "TEXT 2"]
    assert len(server.requests) == 3


@pytest.mark.parametrize(
    "reply", [Reply(content=""), Reply(finish_reason="length"), Reply(finish_reason="content_filter")]
)
def test_answers_are_taken_as_they_are(server: Server, paraphraser: MakeParaphraser, reply: Reply) -> None:
    server.reply = lambda text, attempt: reply
    (answer,) = paraphraser().ask(requests(1)).values()
    assert answer == Answer("TEXT 0" if reply.content is None else "", reply.finish_reason)


def test_half_a_character_is_no_text(server: Server, paraphraser: MakeParaphraser) -> None:
    body = '{"choices": [{"finish_reason": "length", "message": {"content": "hi \\ud83d"}}], "usage": "many"}'
    server.reply = lambda text, attempt: Reply(body=body)
    assert paraphraser().ask(requests(1)) == {requests(1)[0]: Answer("hi \ufffd", "length")}
    assert paraphraser().ask(requests(1)) == {requests(1)[0]: Answer("hi \ufffd", "length")}
    assert len(server.requests) == 1


def test_an_answer_that_drips_is_given_up(server: Server, paraphraser: MakeParaphraser) -> None:
    """The time is a request's, not that of each of its pieces."""
    server.drip = 0.1
    started = time.monotonic()
    with pytest.raises(ParaphraseError, match="did not answer in time, 1 times"):
        paraphraser(timeout=0.5, attempts=1).ask(requests(1))
    assert time.monotonic() - started < 10


def test_one_text_that_the_api_does_not_manage_is_named_and_the_others_go_on(
    server: Server, paraphraser: MakeParaphraser
) -> None:
    trouble = Reply(status=500)
    server.reply = lambda text, attempt: trouble if text == "text 0" else Reply()
    with pytest.raises(ParaphraseError) as caught:
        paraphraser(concurrency=1, attempts=2).ask(requests(5))
    assert str(caught.value) == (
        f"127.0.0.1:{server.server_port} answered with status 500, 2 times, for the text 'text 0'; all other answers "
        "are saved: run again, or change or remove the sample"
    )
    server.reply = lambda text, attempt: Reply()
    paraphraser().ask(requests(5))
    assert sorted(server.texts()) == ["text 0"] * 3 + [f"text {n}" for n in range(1, 5)]


def test_it_can_be_asked_where_an_event_loop_runs(server: Server, paraphraser: MakeParaphraser) -> None:
    async def notebook() -> int:
        return len(paraphraser().ask(requests(3)))

    assert asyncio.run(notebook()) == 3


def test_who_gives_up_says_so(server: Server, paraphraser: MakeParaphraser) -> None:
    server.reply = lambda text, attempt: Reply(status=503, headers={"Retry-After-Ms": "1"})
    with pytest.raises(ParaphraseError) as caught:
        paraphraser(concurrency=1, attempts=2).ask(requests(9))
    host = f"127.0.0.1:{server.server_port}"
    assert str(caught.value) == (
        f"{host} answered with status 503, 2 times in a row; all answers are saved, run again later"
    )
    assert len(server.requests) == 4, "two texts in a row without an answer are enough"
