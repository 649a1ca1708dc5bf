"""Refusals: one line that says how to fix it, at once, without the key, and with what is done kept."""

import subprocess
import threading
import time
import traceback
from pathlib import Path

import pytest
from chat_server import Behaviour, chat_server

from gradsim.study.settings import Paraphrase
from gradsim.text_generation.api import ParaphraseError, Paraphraser
from gradsim.text_generation.request import Request
from gradsim_assets_tests.gradsim.text_generation.api.conftest import MakeParaphraser
from gradsim_assets_tests.gradsim.text_generation.api.talk import KEY, Reply, Server
from gradsim_assets_tests.programs import require_program

REQUESTS = [Request(f"text {n}", 42) for n in range(5)]


@pytest.mark.parametrize(
    ("reply", "problem"),
    [
        (Reply(status=401), "refused the key (401); check OPENAI_API_KEY"),
        (Reply(status=402), "requires payment (402); check the account, then run again"),
        (Reply(status=403), "does not allow this key to use the model gpt-4o-mini-2024-07-18 (403); ask for access"),
        (
            Reply(status=404),
            "has no model gpt-4o-mini-2024-07-18 at this address (404); check the model and OPENAI_BASE_URL",
        ),
        (
            Reply(status=429, code="insufficient_quota"),
            ": the quota is used up (429 insufficient_quota); check the account, then run again",
        ),
        (
            Reply(status=429, headers={"Retry-After": "86400"}),
            "asks to wait 86,400 seconds (429); run again then, or raise the account's limits",
        ),
        (Reply(status=405), "is not a chat completions API (405); check OPENAI_BASE_URL"),
        (
            Reply(status=400, code="0123456789abcdef0123456789abcdef"),
            "rejected the request (400); check the setting's keys",
        ),
        (
            Reply(status=400, code="unsupported_value"),
            "rejected the request (400 unsupported_value); check the setting's keys",
        ),
    ],
    ids=lambda value: f"{value.status} {value.code or ''}" if isinstance(value, Reply) else "",
)
def test_a_refusal_ends_it_at_once(server: Server, paraphraser: MakeParaphraser, reply: Reply, problem: str) -> None:
    server.reply = lambda text, attempt: reply if text == "text 2" else Reply()
    with pytest.raises(ParaphraseError) as caught:
        paraphraser(concurrency=1).ask(REQUESTS)
    said = str(caught.value)
    assert said.removeprefix(f"127.0.0.1:{server.server_port}").lstrip(" ") == problem
    assert server.texts() == ["text 0", "text 1", "text 2"]
    assert KEY not in "".join(traceback.format_exception(caught.value))
    assert KEY not in repr((caught.value.__context__, caught.value.__cause__))
    server.reply = lambda text, attempt: Reply()
    assert len(paraphraser(concurrency=1).ask(REQUESTS)) == 5
    assert server.texts()[3:] == ["text 2", "text 3", "text 4"], "what was done is not asked for again"


def test_a_page_for_people_is_no_api(server: Server, paraphraser: MakeParaphraser) -> None:
    server.reply = lambda text, attempt: Reply(body="<html>", content_type="text/html")
    with pytest.raises(ParaphraseError) as caught:
        paraphraser(concurrency=1).ask(REQUESTS)
    assert str(caught.value).endswith("answered with something that is not a chat completion; check OPENAI_BASE_URL")
    assert len(server.requests) == 1


def test_an_answer_that_is_nested_too_deeply_is_asked_for_again(
    server: Server, paraphraser: MakeParaphraser, short_pauses: None
) -> None:
    server.reply = lambda text, attempt: Reply(body="[" * 70_000) if attempt == 1 else Reply()
    assert len(paraphraser(concurrency=1).ask(REQUESTS)) == len(REQUESTS)
    assert len(server.requests) == 2 * len(REQUESTS)


def test_in_flight_is_waited_for_when_another_is_refused(server: Server, paraphraser: MakeParaphraser) -> None:
    refused = threading.Event()

    def reply(text: str, attempt: int) -> Reply:
        if text == "text 0":
            refused.set()
            return Reply(status=401)
        refused.wait(timeout=20)
        time.sleep(0.2)  # until the client has read the refusal
        return Reply()

    server.reply = reply
    server.gate = threading.Barrier(5)
    with pytest.raises(ParaphraseError):
        paraphraser(concurrency=5).ask(REQUESTS)
    server.gate = None
    assert paraphraser().estimate(REQUESTS).answered == 4, "all that were in flight were answered and kept"


def test_a_server_that_is_not_there_ends_it_at_once(server: Server, paraphraser: MakeParaphraser) -> None:
    closed = Server()
    closed.server_close()
    with pytest.raises(ParaphraseError) as caught:
        paraphraser(base_url=closed.base_url).ask(REQUESTS)
    assert str(caught.value) == (
        f"127.0.0.1:{closed.server_port} cannot be reached; check OPENAI_BASE_URL and the network"
    )


def test_a_host_that_has_no_address_ends_it_at_once(paraphraser: MakeParaphraser) -> None:
    with pytest.raises(ParaphraseError) as caught:
        paraphraser(base_url="http://nobody.invalid/v1").ask(REQUESTS)
    assert str(caught.value) == "nobody.invalid cannot be reached; check OPENAI_BASE_URL and the network"


@pytest.mark.parametrize(
    "base_url",
    [
        "127.0.0.1:8000/v1",
        "ftp://127.0.0.1/v1",
        "http://",
        "http://host:port/v1",
        "http://host:99999",
        "http://[::1/v1",
    ],
)
def test_what_is_no_address_is_refused(paraphraser: MakeParaphraser, base_url: str) -> None:
    with pytest.raises(ParaphraseError) as caught:
        paraphraser(base_url=base_url)
    assert str(caught.value) == "OPENAI_BASE_URL is not a valid address; use one like https://api.openai.com/v1"


def test_a_password_in_the_address_is_refused_and_not_repeated(paraphraser: MakeParaphraser) -> None:
    with pytest.raises(ParaphraseError) as caught:
        paraphraser(base_url="https://someone:hunter2@127.0.0.1/v1")
    assert str(caught.value) == (
        "OPENAI_BASE_URL contains a user or password; remove it, a key belongs in OPENAI_API_KEY"
    )


def test_a_server_without_tls(server: Server, paraphraser: MakeParaphraser) -> None:
    with pytest.raises(ParaphraseError) as caught:
        paraphraser(base_url=server.base_url.replace("http:", "https:")).ask(REQUESTS)
    host = f"127.0.0.1:{server.server_port}"
    assert str(caught.value) == f"{host} does not speak TLS as expected; check OPENAI_BASE_URL and the network"


def test_a_key_that_cannot_be_sent(tmp_path: Path, server: Server) -> None:
    for key in ("sk-one\nsk-two", "sk-…"):
        with pytest.raises(ParaphraseError) as caught:
            Paraphraser(Paraphrase(), tmp_path, base_url=server.base_url, api_key=key).ask(REQUESTS)
        assert str(caught.value) == "OPENAI_API_KEY contains invalid characters, such as a line break; set it again"
    assert server.requests == []


def test_certificates_that_are_not_there(
    server: Server, paraphraser: MakeParaphraser, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", "/nowhere")
    with pytest.raises(ParaphraseError, match="correct or unset SSL_CERT_FILE"):
        paraphraser(base_url=server.base_url.replace("http:", "https:")).ask(REQUESTS)


def test_a_text_that_is_too_long_by_the_servers_words(server: Server, paraphraser: MakeParaphraser) -> None:
    body = '{"error": {"message": "This model\'s maximum context length is 9 tokens", "type": "BadRequestError"}}'
    server.reply = lambda text, attempt: Reply(status=400, body=body) if text == "text 2" else Reply()
    found = paraphraser().ask(REQUESTS)
    assert [answer.finish_reason for answer in found.values()] == ["stop", "stop", "length", "stop", "stop"]


def test_a_certificate_that_nobody_vouches_for_ends_it_at_once(paraphraser: MakeParaphraser, tmp_path: Path) -> None:
    certificate = tmp_path / "certificate.pem"
    options = "-x509 -newkey rsa:2048 -nodes -days 1 -subj /CN=127.0.0.1 -keyout certificate.pem -out public.pem"
    command = [require_program("openssl"), "req", *options.split()]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    certificate.write_text(certificate.read_text() + (tmp_path / "public.pem").read_text())
    with chat_server(tmp_path / "server", Behaviour(certificate=str(certificate))) as server:
        with pytest.raises(ParaphraseError) as caught:
            paraphraser(base_url=server.base_url).ask(REQUESTS)
        assert "its certificate cannot be verified" in str(caught.value)
        assert server.requests() == []


def test_an_api_that_goes_away_for_a_moment_is_waited_for(paraphraser: MakeParaphraser, tmp_path: Path) -> None:
    with chat_server(tmp_path / "server", Behaviour(seconds=0.3)) as server:
        port = int(server.base_url.split(":")[2].split("/")[0])
        asking = paraphraser(base_url=server.base_url, concurrency=1, attempts=10)
        found: list[int] = []
        thread = threading.Thread(target=lambda: found.append(len(asking.ask(REQUESTS))))
        thread.start()
        while len(server.answered()) < 2:
            time.sleep(0.01)
    time.sleep(0.7)  # nobody is there
    with chat_server(tmp_path / "server", Behaviour(port=port)):
        thread.join(timeout=60)
    assert found == [5]


def test_no_key(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(ParaphraseError) as caught:
        Paraphraser(Paraphrase(), tmp_path).ask(REQUESTS)
    assert str(caught.value) == "the API key is missing; set OPENAI_API_KEY in the environment or .env"
