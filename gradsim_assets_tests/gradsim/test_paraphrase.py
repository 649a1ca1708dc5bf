import json
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import polars as pl
import pytest

from gradsim.paraphrase import SYSTEM_PROMPT, ParaphraseError, Paraphraser
from gradsim.queries import QueryMaker
from gradsim.samples import SAMPLES_SCHEMA

KEY = "sk-not-for-anyones-eyes"


@dataclass
class Reply:
    """What the server answers; `content` None: the text in capitals."""

    content: str | None = None
    finish_reason: str = "stop"
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: str | None = None
    content_type: str = "application/json"


class Server(ThreadingHTTPServer):
    """Speaks the chat completions format; `reply` decides what it says to the n-th request for a text."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.reply: Callable[[str, int], Reply] = lambda text, attempt: Reply()
        self.requests: list[dict[str, Any]] = []
        self.lock = threading.Lock()
        self.gate: threading.Barrier | None = None
        self.in_flight = 0
        self.most_in_flight = 0

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"

    def handle_error(self, request: object, client_address: object) -> None:
        if not isinstance(sys.exception(), ConnectionError):  # the client has hung up
            super().handle_error(request, client_address)  # type: ignore[arg-type]

    def texts(self) -> list[str]:
        return [request["messages"][-1]["content"] for request in self.requests]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002 - the base class's name
        pass

    def do_POST(self) -> None:
        server = self.server
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if not body:  # the client has hung up
            return
        request = json.loads(body)
        text = request["messages"][-1]["content"]
        with server.lock:
            server.requests.append(request)
            attempt = server.texts().count(text)
            server.in_flight += 1
            server.most_in_flight = max(server.most_in_flight, server.in_flight)
        assert self.path == "/v1/chat/completions"
        if server.gate:
            server.gate.wait(timeout=20)
        reply = server.reply(text, attempt)
        with server.lock:
            server.in_flight -= 1
        self.answer(reply, text)

    def answer(self, reply: Reply, text: str) -> None:
        if reply.body is None:
            message = {"role": "assistant", "content": text.upper() if reply.content is None else reply.content}
            choice = {"index": 0, "finish_reason": reply.finish_reason, "message": message}
            completion = {"id": "c", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice]}
            # As servers do: an error repeats the key that was sent.
            error = {"error": {"message": f"no: {self.headers['Authorization']}"}}
            reply.body = json.dumps(completion if reply.status == 200 else error)
        body = reply.body.encode()
        self.send_response(reply.status)
        for name, value in reply.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Type", reply.content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def samples(count: int) -> pl.DataFrame:
    rows = [
        (f"s{n}", [{"role": "user", "content": f"prompt {n}"}, {"role": "assistant", "content": f"answer {n}"}])
        for n in range(count)
    ]
    return pl.DataFrame(rows, schema=SAMPLES_SCHEMA, orient="row")


def in_capitals(count: int) -> pl.DataFrame:
    upper = pl.element().struct.with_fields(pl.field("content").str.to_uppercase())
    return samples(count).with_columns(pl.col("messages").list.eval(upper))


def paraphraser(server: Server, **settings: Any) -> Paraphraser:
    return Paraphraser(base_url=server.base_url, api_key=KEY, **settings)


def test_prompt_and_answer_are_reworded_each(server: Server) -> None:
    calls: list[tuple[int, int]] = []
    found = paraphraser(server).paraphrase(samples(20), lambda done, total: calls.append((done, total)))
    assert found.equals(in_capitals(20))
    assert calls == [(done, 20) for done in range(1, 21)]
    assert sorted(server.texts()) == sorted(f"{kind} {n}" for kind in ("prompt", "answer") for n in range(20))
    assert server.requests[0] == {
        "model": "gpt-4o-mini-2024-07-18",
        "temperature": 1.0,
        "seed": 42,
        "messages": [
            {"role": "system", "content": SYSTEM_PROMPT},
            {"role": "user", "content": server.texts()[0]},
        ],
    }


def test_is_a_query_maker(server: Server) -> None:
    maker: QueryMaker = paraphraser(server)
    assert maker.make(samples(3), ["s2", "s0"]).equals(in_capitals(3)[[0, 2]])


def test_no_samples_ask_nothing(server: Server) -> None:
    assert paraphraser(server).paraphrase(samples(0)).equals(samples(0))
    assert server.requests == []


def test_concurrency_is_reached_and_not_exceeded(server: Server) -> None:
    server.gate = threading.Barrier(4)  # opens only when four requests are in flight
    paraphraser(server, concurrency=4).paraphrase(samples(8))
    assert server.most_in_flight == 4


@pytest.mark.parametrize("status", [408, 429, 500])
def test_busy_server_is_asked_again(server: Server, status: int) -> None:
    def reply(text: str, attempt: int) -> Reply:
        busy = text == "prompt 1" and attempt <= 2
        return Reply(status=status, headers={"Retry-After-Ms": "1"}) if busy else Reply()

    server.reply = reply
    assert paraphraser(server).paraphrase(samples(3)).equals(in_capitals(3))
    assert server.texts().count("prompt 1") == 3
    assert len(server.requests) == 8


@pytest.mark.parametrize(
    ("reply", "problem"),
    [
        (Reply(status=401), "127.0.0.1 refused the key (401); check OPENAI_API_KEY"),
        (
            Reply(status=403),
            "127.0.0.1 does not let this key use the model gpt-4o-mini-2024-07-18 (403); ask for access",
        ),
        (
            Reply(status=404),
            "127.0.0.1 knows no model gpt-4o-mini-2024-07-18 at this address (404); check the model and base_url",
        ),
        (Reply(status=429), "127.0.0.1 is still busy or the quota is used up (429); wait, or check the account"),
        (Reply(status=503), "127.0.0.1 answered with status 503; try again or check base_url"),
        (
            Reply(body='{"choices": [{"ind'),
            "127.0.0.1 answered with something that is not a chat completion; check base_url",
        ),
        (
            Reply(body="<html>", content_type="text/html"),
            "127.0.0.1 answered with something that is not a chat completion; check base_url",
        ),
        (
            Reply(body='{"choices": []}'),
            "127.0.0.1 answered with something that is not a chat completion; check base_url",
        ),
        (Reply(content=""), "the rewritten text is empty; try another seed"),
        (Reply(content=" \n"), "the rewritten text is empty; try another seed"),
        (
            Reply(finish_reason="length"),
            "the rewritten text is truncated (finish_reason length); use a model with a longer output",
        ),
        (
            Reply(finish_reason="content_filter"),
            "the API ended the text early (finish_reason content_filter); reword or remove the sample",
        ),
    ],
)
def test_failure_names_the_sample_and_keeps_the_key(server: Server, reply: Reply, problem: str) -> None:
    server.reply = lambda text, attempt: reply if text == "answer 2" else Reply()
    with pytest.raises(ParaphraseError) as caught:
        paraphraser(server, max_retries=0, concurrency=1).paraphrase(samples(5))
    assert str(caught.value) == f"sample 's2' was not paraphrased: {problem}"
    assert server.texts()[-1] == "answer 2"  # nothing was asked for after the failure
    assert KEY not in "".join(traceback.format_exception(caught.value))
    assert KEY not in repr((caught.value.__context__, caught.value.__cause__))


def test_refused_key_is_not_tried_again(server: Server) -> None:
    server.reply = lambda text, attempt: Reply(status=401)
    with pytest.raises(ParaphraseError):
        paraphraser(server, concurrency=1).paraphrase(samples(2))
    assert len(server.requests) == 1


def test_server_that_is_not_there(server: Server) -> None:
    closed = Server()
    closed.server_close()
    with pytest.raises(ParaphraseError) as caught:
        paraphraser(closed, max_retries=0).paraphrase(samples(1))
    assert str(caught.value) == (
        "sample 's0' was not paraphrased: 127.0.0.1 cannot be reached; check base_url and the network"
    )


def test_server_that_stalls(server: Server) -> None:
    release = threading.Event()

    def reply(text: str, attempt: int) -> Reply:
        release.wait(timeout=20)
        return Reply()

    server.reply = reply
    try:
        with pytest.raises(ParaphraseError) as caught:
            paraphraser(server, max_retries=0, timeout=0.05).paraphrase(samples(1))
    finally:
        release.set()
    assert str(caught.value) == (
        "sample 's0' was not paraphrased: 127.0.0.1 did not answer in time; try again or raise the timeout"
    )


def test_no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(ParaphraseError) as caught:
        Paraphraser().paraphrase(samples(1))
    assert str(caught.value) == "there is no API key; set OPENAI_API_KEY in the environment or .env"


def test_key_is_not_shown() -> None:
    assert KEY not in repr(Paraphraser(api_key=KEY))
